"""From the files of data set releases to our JSONL; one module a data set, all started by `preprocess/convert.py`."""
