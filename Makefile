# make demo: compare the remedies on the embedded leaves.  make test: what must hold, in ten minutes.
# make test-all: everything, as CI runs it.  All set themselves up in .venv from a bare clone (Debian, Python 3.10 or later).
BIN := .venv/bin
# chapters that train for minutes, and tests marked slow: only in test-all
SLOW := ^([_.]|04_(distributed|thresholds)|0[1-6]_(rare_d|one_more|why_it|what_else|your_f)|[a-f]_)

unexport PYTHONDONTWRITEBYTECODE # or each of many processes compiles what it imports

.PHONY: setup demo test test-all readme docs clean

setup: .venv/.ready
.venv/.ready: pyproject.toml
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/bn-compare leaves --seeds 6 --out demo

# two run at once, on two cores; Ray's workers must not wait for the other. (No comment behind a
# value: make keeps the blank before it, and Ray crashes on "0 ".)
test test-all: export OMP_NUM_THREADS = 1
test test-all: export RAY_worker_niceness = 0
test: setup
	$(BIN)/python tools/check.py
	$(BIN)/nbdev-test --n-workers 2 --timing --cell-timeout 1500 --skip-file-re '$(SLOW)'
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 20 -m 'not slow' tests

test-all: setup
	$(BIN)/python tools/check.py
	$(BIN)/nbdev-test --n-workers 2 --timing --cell-timeout 1500
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --durations 20 tests

readme: setup
	$(BIN)/python tools/start.py
	$(BIN)/python tools/pictures.py
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/docs.py llms

docs: setup
	$(BIN)/python tools/docs.py

clean:
	rm -rf .venv _docs _proc build dist demo *.egg-info
