# make demo: compare the remedies on the embedded leaves.  make test: everything that must hold.
# Both set themselves up in .venv from a bare clone (Debian, Python 3.10 or later).
BIN := .venv/bin

.PHONY: setup demo test docs readme clean

setup: .venv/.ready
.venv/.ready: pyproject.toml
	python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/bn-compare leaves --seeds 4 --out demo

test: export OMP_NUM_THREADS = 1 # two run at once, on two cores
test: setup
	$(BIN)/python tools/check.py
	$(BIN)/nbdev-test --n-workers 2 --timing
	$(BIN)/python -m pytest -q -n 2 --dist loadfile tests

readme: setup
	$(BIN)/python tools/readme.py
	$(BIN)/python tools/docs.py llms

docs: setup
	$(BIN)/python tools/docs.py

clean:
	rm -rf .venv _docs _proc build dist demo *.egg-info
