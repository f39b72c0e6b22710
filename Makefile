# Everything runs in a .venv here; each target builds what it lacks. `make demo` and `make test` are the two to know.
PYTHON ?= python3
# test files that run at the same time
JOBS ?= 2
BIN := .venv/bin
READY := .venv/.ready

.PHONY: install display servers demo test test-all lint bench corpus docs clean

install: $(READY)

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "ctpipe needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[review,pacs,cloud,export,monai,onnx]' --group dev
	touch $@

# Debian packages that a viewer without a screen needs; skipped with a word where they cannot be installed
display:
	@sh deploy/install-display.sh

# a PACS for the tests (Debian package orthanc); skipped with a word where it cannot be installed
servers:
	@sh deploy/install-servers.sh

demo: $(READY)
	$(BIN)/ctpipe demo demo

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet . || echo 'note: ruff format would change files'
	$(BIN)/lint-imports
	$(BIN)/mypy

test: $(READY) display servers lint
	sh deploy/with-display.sh $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m 'not slow'

test-all: $(READY) display servers lint
	sh deploy/with-display.sh $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt --group bench
	$(BIN)/python -m pip install --quiet -c constraints.txt --no-deps patchify
	test -x build/nnunet-venv/bin/nnUNetv2_predict || sh benchmarks/nnunet-venv.sh build/nnunet-venv
	test -d build/nnunet/results || $(BIN)/python benchmarks/train_nnunet.py build/nnunet
	for script in benchmarks/[a-z]*.py; do $(BIN)/python $$script || exit 1; done

# how many entries of the adversarial corpus pass through `ctpipe ingest`
CORPUS ?= ../shared/corpus
corpus: $(READY)
	rm -rf build/corpus && mkdir -p build/corpus
	$(BIN)/python $(CORPUS)/make_corpus.py build/corpus >build/corpus.log
	CTPIPE_KEY=build/corpus-key PYTHONPATH=tests/pipeline $(BIN)/python $(CORPUS)/check_store.py build/corpus/expected.json --adapter corpus_adapter:adapter

docs: $(READY) display demo
	sh deploy/with-display.sh $(BIN)/python docs/make_pictures.py demo
	sh deploy/with-display.sh $(BIN)/python docs/make_review_pictures.py demo

clean:
	rm -rf .venv build demo *.egg-info
