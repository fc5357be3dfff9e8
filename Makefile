# `make demo` and `make test` need Python 3.10 or newer; everything goes into .venv, data/demo and outputs/demo.
SHELL := /bin/sh
PYTHON ?= python3
RUN := .venv/bin/python
INSTALLED := .venv/.installed
DATA := data/demo
OUT := outputs/demo
SPLITS := train validation test

.PHONY: demo test lint setup clean-demo
.DELETE_ON_ERROR:

setup: $(INSTALLED)

$(INSTALLED): requirements.txt requirements-demo.txt requirements-dev.txt requirements-deepspeed.txt
	sh utils/make_venv.sh "$(PYTHON)" .venv
	@touch $@

test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest

lint: $(INSTALLED)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

# The demo: data -> stores -> training -> evaluation. A stage that is done is not done again; one that was interrupted
# goes on where it stopped.
demo: $(OUT)/eval/report.md
	@echo
	@sed '/^## Sample/,$$d' $<
	@echo "report: $<"
	@for plot in $(OUT)/eval/plots/*.png; do echo "plot:   $$plot"; done

$(DATA)/train.jsonl: | $(INSTALLED)
	$(RUN) preprocess/generate_demo_data.py --output_dir $(DATA) $(DEMO_DATA_OPTIONS)

$(DATA)/validation.jsonl $(DATA)/test.jsonl: $(DATA)/train.jsonl ;

$(DATA)/store/%/manifest.json: $(DATA)/%.jsonl
	$(RUN) preprocess/preshuffle_data_and_chunk.py --input $< --output_dir $(@D) --chunk_size 80 --overwrite

$(OUT)/trained: $(SPLITS:%=$(DATA)/store/%/manifest.json)
	PYTHON=$(RUN) sh train_local_machine.sh --config configs/demo_train_config.json
	@touch $@

$(OUT)/eval/report.md: $(OUT)/trained
	PYTHON=$(RUN) sh eval.sh --config configs/demo_eval_config.json

clean-demo:
	rm -rf $(DATA) $(OUT)
