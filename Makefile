# make demo: compare the remedies on the embedded leaves.  make test: what must hold, in ten minutes.
# make test-all: everything, as CI runs it.  All set themselves up in .venv from a bare clone (Debian, Python 3.10 or later).
BIN := .venv/bin
# chapters that train for minutes, and tests marked slow: only in test-all
SLOW := ^([_.]|60_far|01_rare_d|02_one|03_why|04_when|05_what|05b_|05c_|06_prob|07_sixty|08_own)

.PHONY: setup demo test test-all readme docs clean

setup: .venv/.ready
.venv/.ready: pyproject.toml
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/bn-compare leaves --seeds 4 --out demo

test test-all: export OMP_NUM_THREADS = 1 # two run at once, on two cores
test: setup
	$(BIN)/python tools/check.py
	$(BIN)/nbdev-test --n-workers 2 --timing --skip-file-re '$(SLOW)'
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 20 -m 'not slow' tests

test-all: setup
	$(BIN)/python tools/check.py
	$(BIN)/nbdev-test --n-workers 2 --timing
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 20 tests

readme: setup
	$(BIN)/python tools/start.py
	$(BIN)/python tools/pictures.py
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/docs.py llms

docs: setup
	$(BIN)/python tools/docs.py

clean:
	rm -rf .venv _docs _proc build dist demo *.egg-info
