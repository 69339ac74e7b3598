# make demo: watch a network become many times smaller.   make test: everything that CI checks.
PYTHON ?= python3
# Where to take torch from; empty: wherever pip takes it. CPU build: https://download.pytorch.org/whl/cpu
TORCH_INDEX_URL ?=

BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test lint debian-packages serve schema

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
ifneq ($(TORCH_INDEX_URL),)
	$(BIN)/pip install --no-deps --index-url $(TORCH_INDEX_URL) "$$(grep '^torch==' constraints.txt)"
endif
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/python -m tests.demo

test: lint debian-packages
	$(BIN)/pytest -n 2 --dist worksteal -ra --durations=15

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

debian-packages: install
	$(BIN)/python -m tests.debian

serve: install
	$(BIN)/bayespress serve $(ARGS)

schema: install
	$(BIN)/python -c "import json, compressor; print(json.dumps(compressor.Report.model_json_schema(), indent=2))" > compressor/report.schema.json
	$(BIN)/python -c "import json, compressor; print(json.dumps(compressor.Inspection.model_json_schema(), indent=2))" > compressor/inspection.schema.json
	$(BIN)/python -c "import json, compressor; print(json.dumps(compressor.Selection.model_json_schema(), indent=2))" > compressor/selection.schema.json
	$(BIN)/python -c "import json; from service.app import describe_api; print(json.dumps(describe_api().openapi(), indent=2))" > service/openapi.json
