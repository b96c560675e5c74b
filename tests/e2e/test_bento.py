"""A real model, packaged, served by BentoML in its own process and asked over HTTP."""

from __future__ import annotations

import http.client
import io
import json
import os
import pickle
import shutil
import signal
import socket
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import pytest
import yaml

from ifas.core.errors import ImageRefused, LaunchError
from ifas.core.files import read_json, sha256_file, sha256_tree
from ifas.core.imaging import ImageLimits, decode
from ifas.serving.client import ask, serve
from ifas.serving.package import build_bento
from ifas.serving.request_limits import frame
from tests.unit.serving.bento_records import CANDIDATE, THRESHOLD, approval, lineage, metrics, picture, tiny_model

pytestmark = pytest.mark.slow

LIMITS = ImageLimits(max_bytes=2 * 2**20)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def package(model, tmp_path_factory):
    return make(model, tmp_path_factory.mktemp("package") / "bento")


def make(model: Path, out: Path) -> Path:
    figures = metrics()
    build_bento(model, approval(model), figures, lineage(figures), name="ifas", limits=LIMITS, out=out)
    return out


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("log") / "serve.log"


@pytest.fixture(scope="module")
def url(package, log, tmp_path_factory):
    # A broken ifas on the import path: what serves must be the Bento's own.
    poison = tmp_path_factory.mktemp("poison")
    (poison / "ifas").mkdir()
    (poison / "ifas" / "__init__.py").write_text("raise ImportError('not the ifas of the Bento')")
    before = sha256_tree(package)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(poison))
        with serve(package, log=log) as served:
            yield served
    assert sha256_tree(package) == before, "serving must not change the Bento"


def post(url, body, headers, **options):
    """Status and JSON of a raw POST to /verify."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
    try:
        connection.request("POST", "/verify", body, headers, **options)
        response = connection.getresponse()
        return response.status, json.loads(response.read() or b"null")
    finally:
        connection.close()


def test_the_package(package, model):
    record = read_json(package / "package.json")
    assert record["tag"] == f"ifas:{CANDIDATE}"
    assert record["candidate"] == CANDIDATE
    assert record["model_sha256"] == sha256_tree(model) == sha256_tree(package / "bento" / "src" / "model")
    for file in record["files"]:
        assert sha256_file(package / "bento" / file["path"]) == file["sha256"]
        assert (package / "bento" / file["path"]).stat().st_mode & stat.S_IROTH, "the service runs as another user"
    assert {f["path"] for f in record["files"]} >= {"bento.yaml", "src/serving.json", "src/lineage.json"}
    assert not [f["path"] for f in record["files"] if f["path"].endswith((".pyc", ".bin", ".pt", ".pkl"))]
    assert (package / "MODEL_CARD.md").read_text() == (package / "bento" / "README.md").read_text()
    bento = yaml.safe_load((package / "bento" / "bento.yaml").read_text())
    assert bento["labels"]["candidate"] == CANDIDATE
    assert bento["labels"]["dataset_revision"] == "4be1c0ffee"
    frozen = (package / "bento" / "env" / "python" / "requirements.txt").read_text().split()
    assert set(frozen) == set(record["requirements"])


def test_the_same_inputs_give_the_same_bytes(package, model, tmp_path):
    assert sha256_tree(make(model, tmp_path / "again")) == sha256_tree(package)


def test_big_weights_are_not_copied(model, tmp_path):
    shared = tmp_path / "model"
    shutil.copytree(model, shared)
    for file in shared.iterdir():
        file.chmod(0o644)
    out = make(shared, tmp_path / "out")
    weights = out / "bento" / "src" / "model" / "model.safetensors"
    assert os.path.samefile(weights, shared / "model.safetensors")


def test_an_answer(url):
    answer = ask(url, picture())
    assert set(answer) == {
        "verdict", "score", "threshold", "spoof_type", "explanation", "model_version", "candidate", "image_sha256",
    }  # fmt: skip
    assert answer["threshold"] == THRESHOLD
    assert answer["verdict"] == ("live" if answer["score"] >= THRESHOLD else "spoof")
    assert answer["candidate"] == CANDIDATE
    assert answer["explanation"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_score_is_that_of_the_model_in_process(url, model, kind):
    from ifas.model.judge import Judge

    judge = Judge.load(model)
    for seed in range(3):
        data = picture(seed, kind=kind)
        image = decode(data)
        answer = ask(url, data)
        score = float(judge.judge([image])[0])
        (judged,) = judge.answer([image], THRESHOLD)
        assert judged.score == score
        assert answer["score"] == pytest.approx(score, abs=1e-5)
        assert ask(url, data, explain=False)["score"] == pytest.approx(score, abs=1e-5)
        assert answer["explanation"] == judged.text == judge.explain([image], [answer["verdict"] == "live"])[0]


def test_without_an_explanation(url):
    assert ask(url, picture(), explain=False)["explanation"] == ""


def test_a_file_by_path(url, tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    assert ask(url, tmp_path / "a.png")["score"] == ask(url, picture())["score"]


def bomb() -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("1", (14000, 14000)).save(file, "PNG")
    assert len(file.getvalue()) < 60_000
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (picture(kind="JPEG", size=(400, 400))[:-2000], "truncated"),
        (picture()[:200], "can't be decoded"),
        (b"hello, this is text\n" * 20, "none of"),
        (b"", "can't be decoded"),
        (b"GIF89a" + bytes(100), "none of"),
        (bomb(), "pixels"),
        (picture(size=(16, 16)), "smallest side"),
        (pickle.dumps({"image": 1}), "none of"),
    ],
    ids=["truncated jpeg", "truncated png", "text", "empty", "gif", "bomb", "tiny", "pickle"],
)
def test_bad_pictures_are_400_in_words(url, data, says):
    body, kind = frame(data, True)
    status, answer = post(url, body, {"Content-Type": kind})
    assert status == 400
    assert says in answer["error"]


def test_a_picture_over_the_limit_in_bytes(url):
    """Within the body limit, which leaves room for the frame, but over that of a picture."""
    body, kind = frame(bytes(LIMITS.max_bytes + 10), True)
    status, answer = post(url, body, {"Content-Type": kind})
    assert status == 400
    assert "bytes, the limit is" in answer["error"]


def test_an_oversized_body_is_413_and_the_client_reads_it(url):
    body, kind = frame(bytes(12 * 2**20), True)
    status, answer = post(url, body, {"Content-Type": kind})
    assert status == 413
    assert "larger than" in answer["error"]
    with pytest.raises(ImageRefused, match="413"):
        ask(url, bytes(12 * 2**20))


def test_an_oversized_chunked_body_is_413(url):
    body, kind = frame(bytes(12 * 2**20), True)
    chunks = (body[i : i + 2**16] for i in range(0, len(body), 2**16))
    headers = {"Content-Type": kind, "Transfer-Encoding": "chunked"}
    status, _ = post(url, chunks, headers, encode_chunked=True)
    assert status == 413


def test_a_chunked_body_within_the_limit_is_judged(url):
    body, kind = frame(picture(), False)
    headers = {"Content-Type": kind, "Transfer-Encoding": "chunked"}
    status, answer = post(url, (body[i : i + 1000] for i in range(0, len(body), 1000)), headers, encode_chunked=True)
    assert status == 200
    assert answer["score"] == pytest.approx(ask(url, picture())["score"], abs=1e-5)


def test_a_length_far_beyond_the_limit_is_refused_unread(url):
    parts = urlsplit(url)
    with socket.create_connection((parts.hostname, parts.port), timeout=30) as raw:
        raw.sendall(b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000000\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (pickle.dumps({"image": b"x"}), "application/vnd.bentoml+pickle", 415),
        (b"{}", "application/json", 415),
        (b'{"image": "http://127.0.0.1:1/x.png"}', "application/json", 415),
        (b"image=http://127.0.0.1:1/x.png", "application/x-www-form-urlencoded", 415),
        (b"--x\r\nContent-Disposition: form-data; name=\"image\"\r\n\r\nhttp://127.0.0.1:1/\r\n--x--\r\n",
         "multipart/form-data; boundary=x", 400),
        (b"--x--\r\n", "multipart/form-data; boundary=x", 400),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 400),
        (b"anything", "multipart/form-data", 400),
    ],
    ids=["pickle", "json", "url in json", "url in form", "url for file", "no field", "cut", "no boundary"],
)  # fmt: skip
def test_wrong_requests(url, body, kind, status):
    found, answer = post(url, body, {"Content-Type": kind})
    assert found == status
    assert answer["error"]
    assert answer["fix"]


def test_a_long_file_name_is_no_error(url):
    name = "x" * 1000 + "/../../etc/passwd"
    body = (
        f'--x\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n\r\n'.encode()
        + picture()
        + b"\r\n--x--\r\n"
    )
    status, _ = post(url, body, {"Content-Type": "multipart/form-data; boundary=x"})
    assert status == 200


def test_twenty_at_once(url):
    expected = [ask(url, picture(seed))["score"] for seed in range(5)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda i: ask(url, picture(i % 5)), range(20)))
    for i, answer in enumerate(answers):
        assert answer["score"] == pytest.approx(expected[i % 5], abs=1e-5)
        assert answer["explanation"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics", "/docs.json"])
def test_system_endpoints(url, path):
    with urlopen(url + path, timeout=30) as response:
        text = response.read().decode()
    if path == "/docs.json":
        schemas = json.loads(text)["components"]["schemas"].values()
        assert any({"verdict", "score", "spoof_type"} <= set(s.get("properties", {})) for s in schemas)


def test_the_log_holds_ids_only(url, log):
    answer = ask(url, picture(9))
    body = (
        b'--x\r\nContent-Disposition: form-data; name="image"; filename="jane_doe.png"\r\n\r\n'
        + picture()[:300]
        + b"\r\n--x--\r\n"
    )
    post(url, body, {"Content-Type": "multipart/form-data; boundary=x"})
    text = log.read_text()
    assert answer["image_sha256"][:16] in text
    assert "jane_doe" not in text
    assert "Traceback" not in text


def test_a_bento_whose_model_was_swapped_does_not_start(package, tmp_path):
    bento = tmp_path / "bento"
    shutil.copytree(package / "bento", bento)
    with (bento / "src" / "model" / "config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(LaunchError, match="can't start") as caught, serve(bento, timeout=90):
        pass
    assert "was approved with" in caught.value.what


def test_the_server_does_not_outlive_a_caller_that_is_terminated(package):
    code = (
        "import sys, time; from pathlib import Path; from ifas.serving.client import serve\n"
        "with serve(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(package)], stdout=subprocess.PIPE, text=True) as caller:
        served = caller.stdout.readline().strip()
        assert ask(served, picture(), explain=False)["score"] > 0
        caller.terminate()
        assert caller.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(LaunchError, match="no answer"):
        ask(served, picture())
