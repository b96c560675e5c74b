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
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
import pytest
import yaml
from PIL import Image

from ifas.core.config import TrafficConfig
from ifas.core.errors import FaceRefused, ImageRefused, LaunchError
from ifas.core.files import read_json, sha256_file, sha256_tree
from ifas.core.imaging import ImageLimits, decode
from ifas.core.taxonomy import media_named
from ifas.serving.client import ask, serve
from ifas.serving.contents import write_contents
from ifas.serving.package import build_bento
from ifas.serving.request_limits import frame
from tests.unit.serving.bento_records import (
    CALIBRATION,
    CANDIDATE,
    THRESHOLD,
    approval,
    lineage,
    metrics,
    picture,
    tiny_model,
)

pytestmark = pytest.mark.slow

LIMITS = ImageLimits(max_bytes=2 * 2**20)
TRAFFIC = TrafficConfig(header_seconds=2, body_seconds=5)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def package(model, tmp_path_factory):
    return make(model, tmp_path_factory.mktemp("package") / "bento")


def make(model: Path, out: Path) -> Path:
    figures = metrics()
    build_bento(model, approval(model), figures, lineage(figures), name="ifas", limits=LIMITS, traffic=TRAFFIC, out=out)
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
    assert (package / "MODEL_CARD.md").read_text() == (package / "bento" / "src" / "MODEL_CARD.md").read_text()
    bento = yaml.safe_load((package / "bento" / "bento.yaml").read_text())
    assert bento["labels"]["candidate"] == CANDIDATE
    assert bento["labels"]["dataset_revision"] == "4be1c0ffee"
    frozen = (package / "bento" / "env" / "python" / "requirements.txt").read_text().split()
    assert set(frozen) == set(record["requirements"])
    # What finds faces: two packages, and networks inside the model, so that no package with weights is needed.
    assert {line.split("==")[0] for line in frozen} >= {"onnxruntime", "opencv-contrib-python-headless"}
    assert not [line for line in frozen if "mtcnn" in line]
    networks = [f["path"] for f in record["files"] if f["path"].startswith("src/model/face_finder/")]
    assert len(networks) == 3


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
        "verdict", "score", "threshold", "spoof_type", "spoof_type_confidence", "explanation",
        "model_version", "candidate", "image_sha256",
    }  # fmt: skip
    assert (
        (answer["spoof_type"] == "live") == (answer["verdict"] == "live") == (answer["spoof_type_confidence"] is None)
    )
    assert media_named(answer["explanation"]) == [kind for kind in [answer["spoof_type"]] if kind != "live"]
    assert answer["threshold"] == THRESHOLD
    assert answer["verdict"] == ("live" if answer["score"] >= THRESHOLD else "spoof")
    assert answer["candidate"] == CANDIDATE
    assert answer["explanation"]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_the_score_is_that_of_the_model_in_process(url, model, kind):
    from ifas.model.judge import Judge

    judge, own = Judge.load(model, calibration=CALIBRATION), Judge.load(model)
    for seed in range(3):
        data = picture(seed, kind=kind)
        face = judge.find(decode(data))
        answer = ask(url, data)
        score = float(judge.judge([face])[0])
        (judged,) = judge.answer([face], THRESHOLD)
        assert judged.score == score == CALIBRATION.apply(own.judge([face])).item()
        assert abs(score - own.judge([face]).item()) > 0.01
        assert answer["score"] == pytest.approx(score, abs=1e-5)
        assert ask(url, data, explain=False)["score"] == pytest.approx(score, abs=1e-5)
        assert answer["explanation"] == judged.text == judge.explain([face], [answer["verdict"] == "live"])[0].text
        assert answer["spoof_type"] == judged.spoof_type


def test_without_an_explanation(url):
    assert ask(url, picture(), explain=False)["explanation"] == ""


def test_a_file_by_path(url, tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    assert ask(url, tmp_path / "a.png")["score"] == ask(url, picture())["score"]


def bomb() -> bytes:

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
    assert answer["reason"] == "unreadable"


@pytest.mark.parametrize("colour", ["black", "white"])
def test_a_picture_without_a_face_is_400_with_a_reason_of_its_own(url, colour):
    file = io.BytesIO()
    Image.new("RGB", (96, 80), colour).save(file, "JPEG")
    body, kind = frame(file.getvalue(), True)
    status, answer = post(url, body, {"Content-Type": kind})
    assert (status, answer["reason"]) == (400, "no_face")
    assert "verdict" not in answer
    with pytest.raises(FaceRefused) as caught:
        ask(url, file.getvalue())
    assert caught.value.reason == "no_face"


def test_sixteen_bits_are_scored_as_eight(url):
    grey = np.asarray(Image.fromarray(decode(picture())).convert("L"))
    scores = []
    for pixels in (grey, grey.astype(np.uint16) * 257):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        scores.append(ask(url, file.getvalue(), explain=False)["score"])
    assert scores[0] == scores[1]


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


def connected(url, sent=b""):
    """A raw connection to the server on which `sent` was sent."""
    parts = urlsplit(url)
    raw = socket.create_connection((parts.hostname, parts.port), timeout=30)
    raw.sendall(sent)
    return raw


def verify_request(extra="", explain=False):
    """Bytes of a whole POST to /verify that asks to close the connection."""
    body, kind = frame(picture(), explain)
    head = f"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{extra}"
    return f"{head}Connection: close\r\n\r\n".encode() + body


def until_closed(raw):
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while more := raw.recv(2**16):
            received += more
    except ConnectionResetError:
        pass
    return received


def get(url, path, method="GET"):
    """Status, headers and text of an answer."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.headers, response.read().decode()
    finally:
        connection.close()


def trickle(raw, data, pause, ended):
    """Sends a byte every `pause` seconds until the server hangs up or `ended` is set."""
    try:
        for i in range(len(data)):
            if ended.wait(pause):
                return
            raw.sendall(data[i : i + 1])
    except OSError:
        pass


def test_half_sent_requests_are_closed_in_time_and_hold_nobody_up(url):
    whole = verify_request()
    head_end = whole.index(b"\r\n\r\n") + 4
    slow_but_fine = verify_request("X-Forwarded-For: 203.0.113.9\r\n")
    ended = threading.Event()
    with ExitStack() as stack:
        hold = stack.enter_context
        begin = time.monotonic()
        bodyless = [hold(connected(url, whole[: head_end + 10 * (i % 2)])) for i in range(40)]
        headless = [hold(connected(url, whole[: 20 * (i % 2)])) for i in range(300)]
        # A byte now and then must not buy time: neither in the header, nor in the body, nor after an answer.
        trickling = [
            (hold(connected(url)), b"GET /livez HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 1000),
            (hold(connected(url, b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")), b"x" * 1000),
            (hold(connected(url, b"GET /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")), b"x" * 1000),
        ]
        trickling_body = hold(connected(url, whole[:head_end]))
        pool = hold(ThreadPoolExecutor(10))
        stack.callback(ended.set)
        for raw, data in [*trickling, (trickling_body, whole[head_end:])]:
            pool.submit(trickle, raw, data, 0.2, ended)
        # Slower than a header may be, but not than a body may be. A header that names another client is only text.
        patient = hold(connected(url, slow_but_fine[:-10]))
        pool.submit(trickle, patient, slow_but_fine[-10:], TRAFFIC.header_seconds / 7, ended)

        for _ in range(3):
            started = time.monotonic()
            assert until_closed(hold(connected(url, whole))).startswith(b"HTTP/1.1 200")
            assert get(url, "/livez")[0] == get(url, "/readyz")[0] == get(url, "/metrics")[0] == 200
            assert time.monotonic() - started < 5

        assert until_closed(patient).startswith(b"HTTP/1.1 200")
        for raw in [*headless, *(raw for raw, _ in trickling)]:
            until_closed(raw)
        assert time.monotonic() - begin < TRAFFIC.header_seconds + 5
        for raw in [*bodyless, trickling_body]:
            answer = until_closed(raw)
            assert answer.startswith(b"HTTP/1.1 408")
            assert b"connection: close" in answer.lower()
        assert time.monotonic() - begin < TRAFFIC.body_seconds + 5


def test_overload_is_429_with_retry_after_and_probes_still_answer(url):
    whole = verify_request()
    with ExitStack() as stack:
        raws = [stack.enter_context(connected(url, whole[:-1])) for _ in range(3 * TRAFFIC.max_concurrency)]
        for raw in raws:
            raw.sendall(whole[-1:])
        assert get(url, "/livez")[0] == get(url, "/readyz")[0] == get(url, "/metrics")[0] == 200
        answers = [until_closed(raw) for raw in raws]
    assert not [a for a in answers if b"\r\nserver: " in a.lower()]
    refused = [a for a in answers if a.startswith(b"HTTP/1.1 429")]
    assert sum(a.startswith(b"HTTP/1.1 200") for a in answers) >= TRAFFIC.max_concurrency
    assert len(answers) - len(refused) == sum(a.startswith(b"HTTP/1.1 200") for a in answers)
    assert refused, "not overloaded"
    assert all(b"\r\nretry-after: " in a.lower() for a in refused)
    assert until_closed(connected(url, whole)).startswith(b"HTTP/1.1 200"), "slots are given back"


def server_memory():
    """Resident MiB of the process that serves."""
    import psutil

    workers = [p for p in psutil.Process().children(recursive=True) if "_bentoml_impl.worker.service" in p.cmdline()]
    assert len(workers) == 1
    return workers[0].memory_info().rss / 2**20


def test_unknown_paths_share_one_label(url):
    before = server_memory()
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
    methods = ("GET", "POST", "PUT", "BREW", "M1", "M2", "M3")
    for i in range(1500):
        connection.request(methods[i % 7], f"/secret{i}" if i % 3 else f"/livez/secret{i}?q=secret{i}")
        response = connection.getresponse()
        response.read()
        assert response.status in (404, 405)
    for i in range(50):
        connection.request(f"SECRET{i}", "/verify")
        response = connection.getresponse()
        response.read()
        assert response.status in (404, 405)
        connection.request("GET", f"/?secret={i}")
        connection.getresponse().read()
    connection.close()
    _, _, text = get(url, "/metrics")
    assert "secret" not in text.lower()
    assert "BREW" not in text
    assert 'endpoint="other"' in text
    assert len(text) < 64 * 2**10
    assert server_memory() - before < 10


def test_metrics_count_what_was_answered(url):
    ask(url, picture(), explain=False)
    _, headers, text = get(url, "/metrics")
    assert headers["content-type"].startswith("text/plain")
    verified = [
        line
        for line in text.splitlines()
        if line.startswith("bentoml_service_request_total{")
        and 'endpoint="/verify"' in line
        and 'http_response_code="200"' in line
    ]
    assert len(verified) == 1
    assert float(verified[0].split()[-1]) >= 1


def test_pages_load_nothing_from_elsewhere_and_do_not_publish_the_card(url, package):
    card = (package / "MODEL_CARD.md").read_text()
    said = [line for line in card.splitlines() if len(line) > 30]
    for path in ("/", "/docs.json", "/schema.json", "/livez", "/metrics"):
        status, headers, text = get(url, path)
        assert status == 200
        assert not [line for line in said if line in text or json.dumps(line)[1:-1] in text], path
        assert "googletagmanager" not in text
        assert "<script" not in text
        assert "http" not in text.lower().replace("http_response_code", ""), path
        assert "server" not in {name.lower() for name in headers}
    for path in ("/model-card", "/MODEL_CARD.md", "/static_content/swagger-ui-bundle.js", "/assets/", "/docs"):
        assert get(url, path)[0] == 404


def test_a_web_socket_is_refused(url):
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "
    key = b"eHh4eHh4eHh4eHh4eHh4eA=="
    with connected(url, b"GET /verify HTTP/1.1\r\nHost: x\r\n" + upgrade + key + b"\r\n\r\n") as raw:
        assert raw.recv(2**16).startswith(b"HTTP/1.1 403")


def test_a_flood_of_headers_is_refused(url):
    with connected(url, b"GET / HTTP/1.1\r\nHost: x\r\n") as raw:
        try:
            for i in range(10_000):
                raw.sendall(b"X-%d: " % i + b"x" * 1000 + b"\r\n")
        except OSError:
            pass
        else:
            pytest.fail("took 10 MB of header")


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


@pytest.mark.parametrize("name", ["model/config.json", "serving.json", "ifas/serving/verifier.py"])
def test_an_edited_bento_does_not_start_and_names_the_file(package, tmp_path, name):
    bento = tmp_path / "bento"
    shutil.copytree(package / "bento", bento)
    with (bento / "src" / name).open("a") as file:
        file.write("\n")
    with pytest.raises(LaunchError, match="can't start") as caught, serve(bento, timeout=90):
        pass
    assert f"{name} was changed since this Bento was packaged" in caught.value.what


def test_the_server_does_not_outlive_a_caller_that_is_terminated(package, tmp_path):
    # This server also publishes its card: another one would take as long to start.
    bento = tmp_path / "bento"
    shutil.copytree(package / "bento", bento)
    settings = read_json(bento / "src" / "serving.json")
    (bento / "src" / "serving.json").write_text(json.dumps({**settings, "publish_card": True}))
    write_contents(bento / "src")
    code = (
        "import sys, time; from pathlib import Path; from ifas.serving.client import serve\n"
        "with serve(Path(sys.argv[1])) as url: print(url, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(bento)], stdout=subprocess.PIPE, text=True) as caller:
        served = caller.stdout.readline().strip()
        assert get(served, "/model-card")[2] == (package / "MODEL_CARD.md").read_text()
        assert ask(served, picture(), explain=False)["score"] > 0
        caller.terminate()
        assert caller.wait(timeout=30) == 128 + signal.SIGTERM
    with pytest.raises(LaunchError, match="no answer"):
        ask(served, picture())
