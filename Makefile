# Everything runs in .venv, which the first target that needs it makes from a bare Python 3.11.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
OUTPUT ?= demo_output

.PHONY: demo test test-tensorrt lint clean audit enclaves faults fuzz reliability soak

demo: $(STAMP)
	$(BIN)/threedme demo --output $(OUTPUT)

test: lint
	$(BIN)/python -m pytest

# Parses and builds every exported graph with TensorRT-RTX, ahead of time: 170 MB, no GPU, some minutes.
test-tensorrt: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[tensorrt-rtx]"
	THREEDME_ALL_GRAPHS=1 $(BIN)/python -m pytest -s test/inference/engines/test_tensorrt_rtx.py

# What is pinned, and our own source, against what is known to be dangerous. Asks the package index.
audit: $(STAMP)
	$(BIN)/python test/security/audit.py

# Writes config/sros2/policy.xml anew from the running nodes; read what changed before you commit it.
enclaves: $(STAMP)
	THREEDME_WRITE_ENCLAVES=1 $(BIN)/python -m pytest -q test/ros/test_enclaves.py

# A million hostile inputs over all decoders, with progress and a summary in runs/reliability; five minutes on a quiet machine.
fuzz: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[fuzz]"
	OMP_NUM_THREADS=1 $(BIN)/python test/fuzz/run.py --output runs/reliability/fuzz.json

# 200 faults into running nodes, with progress and a summary; what happened is kept in runs/reliability/faults.json.
faults: $(STAMP)
	$(BIN)/python test/ros/faults/run.py --count 200

# The long part, an hour or two on a quiet machine: the faults, then 2,000 volumes of every kind for 20 minutes and more.
soak: $(STAMP)
	faults=0; $(BIN)/python test/ros/faults/run.py --count 200 || faults=$$?; $(BIN)/threedme soak && exit $$faults

# Writes docs/reliability.md from the records in runs/reliability; refuses while one is missing, failed or too small.
reliability: $(STAMP)
	$(BIN)/python test/reliability/report.py

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# Editable, so that edits count at once: share_path then finds config, models and launch in the checkout itself.
$(STAMP): setup.py setup.cfg package.xml constraints.txt
	@echo "Setting up $(VENV): a few minutes, once, and about 4 GB."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[ros,openvino,igtl,dicom,planning,record,train,test]"
	touch $@

clean:
	rm -rf $(VENV) $(OUTPUT) build install log .pytest_cache .ruff_cache *.egg-info
