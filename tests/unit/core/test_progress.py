import json
import subprocess
import sys


def test_long_lines_of_several_processes_stay_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("IFAS_EVENTS", str(tmp_path / "events"))
    code = "import sys; from ifas.core.progress import emit\n"
    code += "for _ in range(40): emit('note', sys.argv[1], text='x' * 50_000)"
    both = [subprocess.Popen([sys.executable, "-c", code, who]) for who in ("a", "b")]
    assert [process.wait() for process in both] == [0, 0]
    events = [json.loads(line) for line in (tmp_path / "events").read_text().splitlines()]
    assert sorted(event["step"] for event in events) == ["a"] * 40 + ["b"] * 40
    assert {len(event["text"]) for event in events} == {50_000}
