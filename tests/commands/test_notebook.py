"""The notebook runs from top to bottom, in a kernel of its own."""

import nbformat
import pytest
from nbclient import NotebookClient

from tests.house import ROOT
from tests.tiny import xla_flags

NOTEBOOKS = ROOT / "notebooks"

pytestmark = [
    pytest.mark.slow,
    # Of the client and its message queues.
    pytest.mark.filterwarnings("ignore"),
]


def test_quickstart_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("NUM_STEPS", "2")
    monkeypatch.setenv("WORKDIR", str(tmp_path / "run"))
    monkeypatch.setenv("XLA_FLAGS", xla_flags(devices=1))
    notebook = nbformat.read(NOTEBOOKS / "quickstart.ipynb", as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "outputs are not committed"
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": NOTEBOOKS}}
    ).execute()
    shown = [
        output["data"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.output_type == "execute_result"
    ]
    assert sum("image/png" in data for data in shown) == 3
    assert (tmp_path / "run" / "way.gif").is_file()
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()
