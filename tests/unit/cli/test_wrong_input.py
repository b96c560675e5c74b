"""Every command with wrong input: an error that says what to do, no traceback, and no file of the user changed.

The commands are read from the command line itself, so that a new one without cases here fails.
"""

import hashlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import typer

from ifas.cli.main import app
from ifas.core.errors import EXIT_CODES
from ifas.core.records import Lineage, LineageEntry


@dataclass(frozen=True)
class Case:
    """Arguments after the command's own words; `{name}` is a thing of `stage`."""

    arguments: str
    words: str
    code: int
    env: dict[str, str] = field(default_factory=dict)


def case(arguments: str, words: str, code: int, **env: str) -> Case:
    return Case(arguments, words, code, env)


#: What the pods of a pipeline need.
PODS = "-s cluster.image=ifas:1 -s cluster.storage=s3://b/k"
#: Options that every command with a configuration takes: wrong in the same ways.
CONFIG = [
    case("-c nothing", "unknown profile 'nothing'", 2),
    case("-c nothing.yaml", "nothing.yaml can't be read: No such file", 2),
    case("-c {folder}", "{folder} can't be read: Is a directory", 2),
    case("-c {latin}", "is not UTF-8 text", 2),
    case("-c {typo}", "is not valid YAML", 2),
    case("-c {list}", "holds a list", 2),
    case("-c tiny -s train.steps=[", "override 'train.steps=[' is not valid YAML", 2),
    case("-c tiny -s train", "is not of the form section.key=value", 2),
    case("-c tiny -s train.stepz=3", "no key train.stepz", 2),
    case("-c tiny -s evaluate.bootstrap=-1", "evaluate.bootstrap", 2),
    case("-c tiny -s profile.x=1", "profile is not a section", 2),
]
LEDGER = [
    case("-c tiny -s gate.ledger=sqlite:///{notes}", "not a database", 2),
    case("-c tiny -s gate.ledger=sqlite:///{notes}/x/l.db", "{notes}", 2),
    case("-c tiny -s gate.ledger=mysql://u@h/d", "can't be kept in 'mysql'", 2),
    case("-c tiny -s gate.ledger=here", "is not a database URL", 2),
    case("-c tiny", "127.0.0.1", 2, IFAS_LEDGER="postgresql://u:secret@127.0.0.1:9/d"),
]
EVENTS = {
    "IFAS_EVENTS_URL": "http://127.0.0.1:9/events",
    "IFAS_EVENTS_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
}
#: Of a command that decides.
DECIDING = [
    case("{config} {pending} --reason r -s gate.events=foo", "'foo' is not a URL", 2),
    case("{config} {pending} --reason r -s gate.events=http://h", "IFAS_EVENTS_SECRET is not set", 2),
]
CANDIDATE = [
    case("{config} 0123456789ab", "no candidate 0123456789ab", 6),
    case("{config} a", "6 digits are needed", 6),
    case("{config} zzzzzzz", "not a candidate id", 6),
    case("{config} ''", "not a candidate id", 6),
]
REGISTRY = [
    case("{registry_option} nowhere", "nowhere is not a dataset registry", 3),
    case("{registry_option} {notes}", "{notes} is not a dataset registry", 3),
]
JOB = [
    case("dance --image a@sha256:1 --run-id r", "'dance'", 2),
    case("train --run-id r", "--image", 2),
    case("train --image {digest} --run-id ''", "run", 2),
    case("train --image {digest} --run-id r --workers 0", "--workers", 2),
    case("train --image {digest} --run-id r --gpus -1", "--gpus", 2),
    case("train --image {digest} --run-id r --input dataset", "not of the form name=path", 2),
]

CASES: dict[str, list[Case]] = {
    "": [case("dance", "No such command", 2), case("--dance", "No such option", 2)],
    "demo": [
        *CONFIG,
        *LEDGER[:3],
        case("-c tiny --faces nowhere", "nowhere", 3),
        case("-c tiny --faces {notes}", "{notes}", 3),
        case("-c tiny --faces {folder}", "{folder}", 3),
        case("-c tiny --ask nowhere.jpg", "nowhere.jpg", 3),
        case("-c tiny --ask {folder}", "{folder}", 3),
        case("-c tiny --runs {notes}/runs", "{notes}", 9),
        case("-c tiny --runner dance", "--runner", 2),
        case("-c tiny -s gate.policy=builtin:dance", "unknown builtin policy 'dance'", 2),
    ],
    "run": [
        *CONFIG,
        *LEDGER,
        case("{config} --runner dance", "--runner", 2),
        case("{config} --runs {notes}/runs --runner process", "{notes}", 9),
        case("{config} -s ingest.registry=nowhere -s gate.policy=dance.yaml", "dance.yaml can't be read", 2),
        case("{config} -s ingest.registry=nowhere -s gate.policy={latin}", "can't be read", 2),
        case("{config} -s ingest.registry=nowhere -s gate.policy={typo}", "not valid YAML", 2),
        case("{config} -s ingest.registry=nowhere", "nowhere is not a dataset registry", 3),
        case("{config} -s ingest.registry={git}", "no dataset 'toy'", 3),
        case("{config} -s ingest.registry=file://{notes}", "can't be cloned", 3),
        case("{config} -s ingest.revision=v99", "no revision 'v99'", 3),
        case("{config} -s ingest.dataset=dance", "dance", 3),
        case("{config} -s ingest.dataset=../dance", "'../dance' is not usable", 3),
        case("{config} -s ingest.remote=dance", "no DVC remote 'dance'", 3),
        case("{config} -s protocol.target_domains=[moon] --dry-run", "names moon", 2),
        case("{config} -s ingest.registry=nowhere", "/proc/none can't be written", 9, IFAS_HOME="/proc/none"),
        case("{config} --baseline flip", "not of the form name=path", 2),
        case("{config} --baseline flip=nowhere.csv", "nowhere.csv does not exist", 3),
        case("{config} --baseline flip={folder}", "{folder} can't be read as CSV", 3),
        case("{config} --baseline flip={notes}", "{notes} has no column sample_id", 3),
        case("{config} --baseline linear_probe={notes}", "linear_probe is the name of", 2),
        case("{config} --baseline flip=dance://x", "dance://x", 2),
    ],
    "step": [
        *[Case(f"ingest {one.arguments}", one.words, one.code, one.env) for one in CONFIG],
        case("dance", "unknown step 'dance'", 2),
        case("ingest {config} -o here", "not of the form name=path", 2),
        case("ingest {config} -o dance=here", "has no output dance", 2),
        case("ingest {config} -o dataset=/proc/none/x", "/proc/none", 9),
        case("ingest {config} -o dataset={notes}/x", "{notes}", 9),
        case("ingest {config} -i dance=here", "here does not exist", 3),
        case("ingest {config} -i lineage={notes} -o dataset=d", "{notes}", 3),
        case("caption {config} -i dataset=nowhere", "nowhere does not exist", 3),
        case("caption {config} -i dataset={folder}", "no manifest at {folder}", 3),
        case("caption {config} -i dataset={damaged}", "can't be read as Parquet", 3),
        case("caption {config} -i dataset=dance://x", "dance://x", 2),
        case(
            "gate {config} -i dataset={folder} -i captions={folder} -i model={folder} -i evaluation={folder}",
            "metrics.json",
            9,
        ),
        case(
            "gate {config} -i dataset={folder} -i captions={folder} -i model={folder} -i evaluation={damaged}",
            "metrics.json is not JSON",
            3,
        ),
        case("approve {config} -i candidate={notes}", "{notes} is not JSON", 3),
        case("approve {config} -i candidate={list_json}", "{list_json} is not a candidate", 3),
        case("approve {config} -i candidate={other_json}", "{other_json} is not a candidate", 3),
        case("approve {config} -i candidate={folder}", "{folder}", 9),
        case(
            "package {config} -i model={folder} -i evaluation={damaged} -i approval={other_json}",
            "{other_json} is not an approval",
            3,
        ),
        case("ingest {config}", "/proc/none", 9, IFAS_HOME="/proc/none"),
    ],
    "compile": [
        case(f"{{folder}} {PODS}", "{folder} can't hold a compiled pipeline", 2),
        case(f"out.txt {PODS}", "out.txt can't hold a compiled pipeline", 2),
        case(f"{{notes}}/x.yaml {PODS}", "{notes}", 9),
        case(f"/proc/none/x.yaml {PODS}", "/proc/none", 9),
        case("x.yaml -c tiny", "cluster.image", 2),
        case("x.yaml -c dance", "unknown profile 'dance'", 2),
    ],
    "schedule apply": [
        case("--endpoint http://127.0.0.1:9 {folder}", "there are no schedules in", 2),
        case("--endpoint http://127.0.0.1:9 {typo}", "typo.yaml", 2),
        case("--endpoint ftp://x {folder}", "is not a URL of a web service", 2),
    ],
    "schedule list": [
        case("--endpoint ftp://x", "is not a URL of a web service", 2),
        case("--endpoint http://127.0.0.1:9", "http://127.0.0.1:9 refused or did not answer", 7),
    ],
    "schedule delete": [
        case("--endpoint ftp://x nightly", "is not a URL of a web service", 2),
        case("--endpoint http://127.0.0.1:9 nightly", "http://127.0.0.1:9 refused or did not answer", 7),
    ],
    "trigger serve": [
        case("--endpoint ftp://x {typo}", "is not a URL of a web service", 2),
        case("--endpoint http://127.0.0.1:9 {typo}", "typo.yaml", 2),
        case("--endpoint http://127.0.0.1:9 {list}", "list.yaml", 2),
        case("--endpoint http://127.0.0.1:9 {folder}", "{folder}", 2),
    ],
    "trigger list": [
        case("--state gone", "unknown state 'gone'", 2),
        case("--store sqlite:///{notes}", "is not a database of SQLite", 2),
        case("--store mysql://u@h/d", "can't be kept in 'mysql'", 2),
        case("", "127.0.0.1", 2, IFAS_TRIGGER_STORE="postgresql://u:secret@127.0.0.1:9/d"),
    ],
    "trigger replay": [
        case("e1 --reason x --store sqlite:///{notes}", "is not a database of SQLite", 2),
        case("e1 --reason x --store here", "IFAS_TRIGGER_STORE is not a database URL", 2),
    ],
    "trigger send": [
        case("{notes} --url ftp://x", "is not a URL of a web service", 2),
        case("nothing.json --url http://127.0.0.1:9", "nothing.json can't be read", 2),
        case("{notes} --url http://127.0.0.1:9", "IFAS_TRIGGER_SECRET is not set", 2),
        case("{notes} --url http://127.0.0.1:9 --secret S", "can't be reached", 7, S="whsec_" + "a" * 44),
    ],
    "submit": [
        *[Case(f"--endpoint http://127.0.0.1:9 {one.arguments}", one.words, one.code, one.env) for one in CONFIG],
        case("-c tiny", "--endpoint", 2),
        case("-c tiny --endpoint foo", "'foo' is not a URL", 2),
        case(f"-c tiny --endpoint http://127.0.0.1:9 -s ingest.registry=https://h/r.git {PODS}", "127.0.0.1:9", 7),
        case("-c tiny --endpoint http://127.0.0.1:9", "cluster.storage", 2),
        case("-c base --endpoint http://127.0.0.1:9", "protocol.source_domains", 2),
        case("-c tiny --endpoint foo --dry-run", "'foo' is not a URL", 2),
    ],
    "cluster check": [
        case("-c tiny", "Kubernetes", 7, KUBECONFIG="/nowhere"),
        case("-c tiny", "Kubernetes", 7, KUBECONFIG="{notes}"),
        case("--dance", "No such option", 2),
    ],
    "runs": [
        case("", "--endpoint", 2),
        case("--endpoint foo", "'foo' is not a URL", 2),
        case("--endpoint http://127.0.0.1:9", "http://127.0.0.1:9", 7),
        case("--endpoint http://127.0.0.1:9 --count 0", "--count", 2),
    ],
    "logs": [
        case("--endpoint foo", "Missing argument", 2),
        case("r --endpoint foo", "'foo' is not a URL", 2),
        case("r --endpoint http://127.0.0.1:9", "http://127.0.0.1:9", 7),
        case("r --endpoint http://127.0.0.1:9 --tail 0", "--tail", 2),
    ],
    "cancel": [
        case("r --endpoint foo", "'foo' is not a URL", 2),
        case("r --endpoint http://127.0.0.1:9", "http://127.0.0.1:9", 7),
    ],
    "candidates": [*CONFIG, *LEDGER, case("{config} --state dance", "unknown candidate state 'dance'", 2)],
    "verify": [
        case("nowhere --key {notes}", "{notes} can't be used", 2),
        case("nowhere.json --key {notes}", "{notes} can't be used", 2),
        case("{folder} --key nowhere.pub", "nowhere.pub can't be used", 2),
        case("{folder}", "--key", 2),
    ],
    "ledger verify": [*CONFIG, *LEDGER, case("{config} -s gate.witness=dance://x", "dance://x", 2)],
    "ledger keep": [*LEDGER, case("{config} -s ingest.registry=nowhere", "no witness is set", 2)],
    "ledger announce": [
        *CONFIG,
        *[Case(one.arguments, one.words, one.code, {**one.env, **EVENTS}) for one in LEDGER],
        case("{config}", "no receiver of events is set", 2),
        case("{config} --dry-run -s gate.events=foo", "'foo' is not a URL", 2),
        case("{config} -s gate.events=http://127.0.0.1:9", "IFAS_EVENTS_SECRET is not set", 2),
        case("{config} -s gate.events=http://127.0.0.1:9", "is not base64", 2, IFAS_EVENTS_SECRET="whsec_!"),
        case("{config} -s gate.events_source=' '", "gate.events_source", 2),
    ],
    "product register": [
        *[Case(f"door --policy builtin:demo --reason r {one.arguments}", one.words, one.code) for one in LEDGER[:4]],
        case("{config} door --reason r", "--policy", 2),
        case("{config} door --policy builtin:demo", "--reason", 2),
        case("{config} door --policy builtin:dance --reason r", "unknown builtin policy 'dance'", 2),
        case("{config} door --policy {typo} --reason r", "not valid YAML", 2),
        case("{config} door --policy builtin:demo --reason ' '", "no reason given", 6),
        case("{config} door --policy builtin:demo --reason r", "nobody could approve", 6),
        case("{config} door --policy builtin:demo --reason r --reviewer ann", "not NAME=FILE", 2),
        case(
            "{config} door --policy builtin:demo --reason r --reviewer ann=nowhere.pub", "nowhere.pub can't be used", 2
        ),
        case(
            "{config} door --policy builtin:demo --reason r --by-policy --gate cluster",
            "--gate 'cluster' is not NAME",
            2,
        ),
        case("{config} door --policy builtin:demo --reason r --by-policy --gate a=nowhere.pub", "nowhere.pub can't", 2),
        case(
            "{config} door --policy builtin:demo --reason r --by-policy --key hv:none", "key hv:none can't be used", 2
        ),
        case("{config} door --policy builtin:demo --reason r --approvals 2", "approvals without a reviewer", 2),
        case(
            "{config} door --policy builtin:demo --reason r --by-policy -s gate.admin_key=nowhere.pub", "nowhere.pub", 2
        ),
        case("{config} '' --policy builtin:demo --reason r", "no name given", 6),
    ],
    "product list": [*CONFIG, *LEDGER],
    "show": [*CANDIDATE, *[Case(f"abcdef {one.arguments}", one.words, one.code, one.env) for one in LEDGER]],
    "gate": [
        *[Case(f"--explain abcdef {one.arguments}", one.words, one.code, one.env) for one in (*CONFIG, *LEDGER)],
        *[
            Case(one.arguments.replace("{config} ", "{config} --explain "), one.words, one.code, one.env)
            for one in CANDIDATE
        ],
        *[Case(f"--replay builtin:demo {one.arguments}", one.words, one.code, one.env) for one in LEDGER],
        case("{config}", "one of --explain and --replay is needed", 2),
        case("{config} --explain {pending} --replay builtin:demo", "one of --explain and --replay is needed", 2),
        case("{config} --explain {pending} --product ifas", "--product is for --replay", 2),
        case("-c tiny --replay builtin:demo", "there is no ledger at", 2),
        case("-c tiny --explain abcdef", "there is no ledger at", 2),
        case("{config} --replay builtin:dance", "unknown builtin policy 'dance'", 2),
        case("{config} --replay nowhere.yaml", "nowhere.yaml can't be read", 2),
        case("{config} --replay {folder}", "{folder} can't be read", 2),
        case("{config} --replay {typo}", "not valid YAML", 2),
        case("{config} --replay {list}", "policy {list}", 2),
        case("{config} --replay builtin:demo --last 0", "--last", 2),
        case("{config} --replay builtin:demo --last many", "--last", 2),
        case("{config} --replay builtin:demo --product dance", "there is no candidate of product 'dance'", 6),
        case("{config} --replay builtin:demo --product ''", "there is no candidate of product ''", 6),
    ],
    "approve": [
        *DECIDING,
        *[Case(f"{one.arguments} --reason r", one.words, one.code) for one in CANDIDATE],
        case("abcdef", "--reason", 2),
        case("{config} {pending} --reason ''", "no reason given", 6),
        case("{config} {refused} --reason r", "the gate refused it", 6),
    ],
    "reject": [
        *DECIDING,
        *[Case(f"{one.arguments} --reason r", one.words, one.code) for one in CANDIDATE],
        case("{config} {pending} --reason ' '", "no reason given", 6),
        case("{config} {approved} --reason r", "no such decision follows", 6),
    ],
    "revoke": [
        *DECIDING,
        *[Case(f"{one.arguments} --reason r", one.words, one.code) for one in CANDIDATE],
        case("{config} {pending} --reason r", "is pending", 6),
        case("{config} {approved} --reason ' '", "no reason given", 6),
        case("{config} {approved} --reason r --key nowhere.pem", "has no reviewers", 6),
    ],
    "package": [
        *CANDIDATE,
        case("{config} {pending}", "is pending, not approved", 6),
        case("{config} {approved}", "is no longer at", 3),
        case("{config} {approved} --run nowhere", "nowhere", 3),
    ],
    "serve": [
        case("nowhere", "nowhere holds no Bento", 7),
        case("{notes}", "{notes} holds no Bento", 7),
        case("{folder}", "{folder} holds no Bento", 7),
        case("{folder} --key nowhere.pub", "nowhere.pub can't be used", 2),
        case("{bento} --port 99999", "--port", 2),
        case("{bento} --port -1", "--port", 2),
        case("{bento} --port http", "--port", 2),
        case("{bento} --port {taken}", "port {taken} is taken", 7),
    ],
    "ask": [
        case("{notes} --url foo", "'foo' is not a URL", 2),
        case("{notes} --url ''", "'' is not a URL", 2),
        case("{notes} --url ftp://127.0.0.1", "ftp://127.0.0.1", 2),
        case("{notes} --url http://127.0.0.1:99999", "127.0.0.1:99999", 2),
        case("{notes} --url http://", "http://", 2),
        case("{notes} --url http://127.0.0.1:9", "no answer from http://127.0.0.1:9", 7),
        case("{notes} --url http://nowhere.invalid", "no answer from http://nowhere.invalid", 7),
        case("nowhere.jpg", "nowhere.jpg can't be read", 3),
        case("{folder}", "{folder} can't be read", 3),
    ],
    "data import": [
        case("dance {folder}", "'dance'", 2),
        case("folder nowhere", "nowhere", 3),
        case("folder {notes}", "{notes}", 3),
        case("folder {pictures} --frames dance --accept-licence me --licence CC0-1.0 --name n", "dance", 2),
        case("folder {pictures} --workers 0", "--workers", 2),
        case("folder {pictures} --name ../x --licence CC0-1.0 --accept-licence me", "'../x' is not usable", 3),
        case("folder {pictures} --name n --licence CC0-1.0", "are not accepted", 3),
        case(
            "folder {pictures} --name n --licence CC0-1.0 --accept-licence me --registry {notes}",
            "{notes} is not a dataset",
            3,
        ),
        case(
            "folder {pictures} --name n --licence CC0-1.0 --accept-licence me --registry {registry} --out {notes}/x",
            "{notes}",
            9,
        ),
    ],
    "data diff": [
        *[Case(f"v1 v2 {one.arguments}", one.words, one.code) for one in REGISTRY],
        case("v1 v2 --registry {registry} --name toy", "no revision 'v2'", 3),
        case("v1 v1 --registry {registry} --name dance", "dance", 3),
        case("{damaged} {damaged}", "can't be read as Parquet", 3),
    ],
    "data add": [
        *[Case(f"{{delivery}} {{batch}} {one.arguments}", one.words, one.code) for one in REGISTRY],
        case("nowhere {batch} --registry {registry}", "nowhere", 3),
        case("{notes} {batch} --registry {registry}", "{notes}", 3),
        case("{delivery} {batch} --species dance --registry {registry}", "'dance' is not in the taxonomy", 3),
        case("{delivery} {batch} --source 'Red Team' --registry {registry}", "'Red Team' is not usable", 3),
        case("{delivery} {batch} --max-rows -1 --registry {registry}", "--max-rows", 2),
        case("{delivery} {batch} --domain '' --registry {registry}", "domain", 3),
        case("{delivery} {batch} --licence '' --registry {registry}", "licence", 3),
        case("{pictures} --name toy", "--source", 2),
    ],
    "data batches": [
        *[Case(f"toy {one.arguments}", one.words, one.code) for one in REGISTRY],
        case("dance --registry {registry}", "dance", 3),
        case("../toy --registry {registry}", "'../toy' is not usable", 3),
    ],
    "data release": [
        case("a.001 --name toy --run nowhere --reason r --registry {registry}", "lineage.json can't be read", 3),
        case("a.001 --name toy --run {damaged} --reason r --registry {registry}", "lineage.json can't be read", 3),
        case("a.001 --name toy --run {done} --reason r --registry {registry}", "has not seen batch a.001", 3),
        case("a.001 --name other --run {done} --reason r --registry {registry}", "is not about the dataset other", 3),
        case("a.001 --name toy --run {folder}", "--reason", 2),
    ],
    "data demo": [
        case("--subjects 0", "--subjects", 2),
        case("--subjects -4", "--subjects", 2),
        case("--workers 0", "--workers", 2),
        case("--seed -1", "--seed", 2),
        case("--faces nowhere", "nowhere", 3),
        case("--faces {notes}", "{notes}", 3),
        case("--sheet sheet.txt", "sheet.txt", 2),
        case("--out {notes}/x", "{notes}", 9),
        case("--out {folder}", "{folder}", 3),
        case("--out /proc/none", "/proc/", 9),
        case("--out {out}", "/proc/none", 9, IFAS_HOME="/proc/none"),
    ],
    "data pack": [
        case("dance {pictures} --out o --name n", "'dance'", 2),
        case("folder nowhere --out o --name n", "nowhere", 3),
        case("folder {notes} --out o --name n", "{notes}", 3),
        case("folder {empty} --out o --name n", "{empty}", 3),
        case("folder {pictures} --out o --name ../n --licence CC0-1.0", "'../n' is not usable", 3),
        case("folder {pictures} --out o --name n --workers 0", "--workers", 2),
        case("folder {pictures} --out {notes}/o --name n --licence CC0-1.0", "{notes}", 9),
        case("folder {pictures} --out {folder} --name n --licence CC0-1.0", "{folder}", 3),
        case("folder {pictures} --name n", "--out", 2),
    ],
    "data init": [
        case("--registry {notes}", "{notes} exists and is not a dataset registry", 3),
        case("--registry {folder}", "{folder} exists and is not a dataset registry", 3),
        case("--registry {notes}/x", "{notes}", 9),
        case("--registry /proc/none", "/proc/none", 9),
        case("--registry r --remote s3://me:secret@bucket/x", "carries credentials", 3),
        case("--registry r --endpoint http://127.0.0.1:9", "an endpoint is for an S3 remote", 3),
        case("--registry r --remote {notes}/x", "{notes}", 9),
    ],
    "data publish": [
        case("nowhere --registry {registry}", "nowhere", 3),
        case("{notes} --registry {registry}", "{notes}", 3),
        case("{folder} --registry {registry}", "{folder}", 3),
        case("{damaged} --registry {registry}", "dataset.json", 3),
        *[Case(f"{{folder}} {one.arguments}", one.words, one.code) for one in REGISTRY],
    ],
    "data revisions": [
        *[Case(f"toy {one.arguments}", one.words, one.code) for one in REGISTRY],
        case("dance --registry {registry}", "no dataset 'dance'", 3),
        case("'' --registry {registry}", "'' is not usable", 3),
        case("toy --registry {empty_git}", "{empty_git}", 3),
    ],
    "review": [
        *CONFIG,
        case("{config} --port 99999", "--port", 2),
        case("{config} --host 0.0.0.0", "would cross the network unencrypted", 2),
        case("{config} -s review.database=sqlite:///{notes}", "is not a database of SQLite", 2),
        case("{config} -s review.database=mysql://u@h/d", "can't be kept in 'mysql'", 2),
        case("{config} -s review.key=env:NOTHING", "which is not set to 32 characters", 2),
        case("{config} -s review.key={notes}", "others than its owner may read", 2),
        case("{config} -s review.proxy_header=X-User", "needs trusted_proxies and roles", 2),
        case("{config} -s review.trusted_proxies=[here]", "review.trusted_proxies", 2),
        case("{config} -s review.key=env:KEY --port {taken}", "can't be listened on", 7, KEY="k" * 32),
        case("-c tiny -s gate.ledger=sqlite:///{notes}", "not a database", 2),
        case("{config}", "127.0.0.1", 2, IFAS_REVIEW="postgresql://u:secret@127.0.0.1:9/d"),
    ],
    "review account add": [
        case("ann --role viewer -c nothing", "unknown profile 'nothing'", 2),
        case("ann {config}", "--role", 2),
        case("ann --role king {config} --password-env P", "unknown role 'king'", 2, P="long enough to be one"),
        case("'a b' --role viewer {config} --password-env P", "'a b' can't be the name", 2, P="long enough to be one"),
        case("ann --role viewer {config} --password-env P", "has 5 characters", 2, P="short"),
        case("ann --role viewer {config} --password-env P", "P is not set", 2),
        case("ann --role viewer {config}", "no password was given", 2),
    ],
    "review account list": [
        case("-c nothing", "unknown profile 'nothing'", 2),
        case("{config} -s review.database=sqlite:///{notes}", "is not a database of SQLite", 2),
        case("{config}", "127.0.0.1", 2, IFAS_REVIEW="postgresql://u:secret@127.0.0.1:9/d"),
    ],
    "review account disable": [
        case("ann {config} -s review.database=mysql://u@h/d", "can't be kept in 'mysql'", 2),
        case("ann -c nothing", "unknown profile 'nothing'", 2),
        case("ann {config} -s review.database=sqlite:///{notes}", "is not a database of SQLite", 2),
    ],
    "config list": [case("tiny", "unexpected extra argument", 2), case("--json", "No such option", 2)],
    "config show": [Case(one.arguments.removeprefix("-c "), one.words, one.code) for one in CONFIG],
    "model describe": [
        *CONFIG,
        case("-c tiny --memory-gib -1", "--memory-gib", 2),
        case("-c tiny -s model.vision.image_size=70", "70", 2),
        case("-c tiny -s model.language.source=/no/such/folder", "/no/such/folder does not exist", 2),
        case("-c tiny -s model.language.source=nobody/nothing", "nobody/nothing", 2),
        case("-c tiny -s model.vision.source={folder}", "no *.safetensors", 2),
        case("-c tiny -s model.connector.heads=3", "heads", 2),
    ],
    "launch render": JOB,
    "launch run": [
        *JOB,
        case("train --image {digest} --run-id r {uris}", "Kubernetes", 7, KUBECONFIG="/nowhere"),
        case("train --image {digest} --run-id r {uris}", "Kubernetes", 7, KUBECONFIG="{notes}"),
    ],
}


def commands(command: typer.core.TyperCommand | None = None, above: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command by its words."""
    command = command or typer.main.get_command(app)
    below = getattr(command, "commands", None)
    if below is None:
        yield " ".join(above)
        return
    if above and getattr(command, "invoke_without_command", False):  # a command that has others below it
        yield " ".join(above)
    for name, one in below.items():
        yield from commands(one, (*above, name))


def test_every_command_is_driven_with_wrong_input() -> None:
    assert set(CASES) - {""} == set(commands())
    assert min(len(cases) for cases in CASES.values()) >= 2
    assert sum(map(len, CASES.values())) >= 84


def contents(folder: Path) -> dict[str, str]:
    """Each file below a folder with the hash of its bytes; folders, too."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture(scope="module")
def stage(registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Files of a user that a wrong argument may name."""
    from tests.unit.cli.candidates import decided

    root = tmp_path_factory.mktemp("stage")
    names: dict[str, str] = {}

    def file(name: str, where: str, data: bytes | str) -> None:
        path = root / where
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        names[name] = str(path)

    file("notes", "notes.txt", "what I must not forget\n" * 100)
    file("latin", "latin.yaml", "profile: tiny\n# caf\xe9\n".encode("latin-1"))
    file("typo", "typo.yaml", "profile: tiny\ntrain: {steps: 3\n")
    file("list", "list.yaml", "- profile\n- tiny\n")
    file("list_json", "list.json", "[1, 2]")
    file("other_json", "other.json", '{"name": "other"}')
    file("", "folder/keep.txt", "mine")
    file("", "bento/bento.yaml", "service: nothing\n")
    for name in ("manifest.parquet", "dataset.json", "metrics.json", "lineage.json"):
        file("", f"damaged/{name}", "{cut")
    for name in ("empty", "out"):
        (root / name).mkdir()
    for name in ("folder", "damaged", "bento", "empty", "out"):
        names[name] = str(root / name)
    for name in ("git", "empty_git"):
        names[name] = str(root / name)
        subprocess.run(["git", "init", "-q", names[name]], check=True)
    commit = ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "--allow-empty", "-m", "x")
    subprocess.run(["git", "-C", names["git"], *commit], check=True)

    from tests import toy_dataset

    made = toy_dataset.draw
    import cv2
    import numpy as np

    picture = root / "pictures" / "office" / "live" / "ann" / "a.png"
    picture.parent.mkdir(parents=True)
    cv2.imwrite(str(picture), made(np.random.default_rng(0), "live", 1.0)[..., ::-1])
    names["pictures"] = str(root / "pictures")
    names["delivery"] = str(root / "pictures" / "office" / "live")
    names["done"] = str(root / "done")
    (root / "done").mkdir()
    lineage = Lineage(run_id="r").append(entry("ingest", {"dataset": "toy"})).append(entry("validate", {}))
    (root / "done" / "lineage.json").write_text(lineage.model_dump_json())

    ledger = f"sqlite:///{root / 'ledger.db'}"
    names |= decided(ledger)
    file(
        "settings",
        "settings.yaml",
        json.dumps(
            {
                "profile": "tiny",
                "ingest": {"registry": str(registry.path), "dataset": "toy"},
                "gate": {"ledger": ledger},
            }
        ),
    )
    names["config"] = f"-c {names['settings']}"
    names["registry"] = str(registry.path)
    names["registry_option"] = "--registry"
    names["batch"] = "--name toy --source red-team --species print.a4 --domain office --licence CC0-1.0"
    names["digest"] = f"registry.example/ifas@sha256:{'0' * 64}"
    names["uris"] = " ".join(
        [*(f"--input {n}=s3://b/{n}" for n in ("dataset", "captions", "validation")), "--output model=s3://b/model"]
    )
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        names["taken"] = str(busy.getsockname()[1])
        names["root"] = str(root)
        yield names


def words_of(one: Case, stage: dict[str, str]) -> list[str]:
    import shlex

    return shlex.split(one.arguments.format(**stage))


def entry(step: str, facts: dict[str, str]) -> LineageEntry:
    """What a step leaves in a lineage."""
    rest = {"config": "", "code": "", "inputs": {}, "outputs": {}, "summary": "", "image": "", "started": ""}
    return LineageEntry(step=step, facts=facts, seconds=0, **rest)


ALL = [(command, one) for command, cases in CASES.items() for one in cases]


@pytest.mark.parametrize(("command", "one"), ALL, ids=[f"{command or 'ifas'} {one.arguments}" for command, one in ALL])
def test_wrong_input_is_named_and_touches_nothing(
    command: str, one: Case, ifas: Callable, stage: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in one.env.items():
        monkeypatch.setenv(name, value.format(**stage))
    before = contents(Path(stage["root"]))
    done = ifas(*command.split(), *words_of(one, stage))
    said = done.out + done.err
    assert "Traceback" not in said
    assert "bug of ifas" not in said
    assert one.words.format(**stage) in " ".join(said.split()), said
    assert done.code == one.code, said
    assert one.code in EXIT_CODES
    assert one.code != 1
    # Our own form, or that of the parser of the command line.
    assert ("error: " in done.err and "\n  fix: " in done.err) or ("Usage: " in said and "--help" in said), said
    assert "secret" not in said
    assert contents(Path(stage["root"])) == before
    left = {name for name in contents(tmp_path) if not name.startswith(".ifas")}
    assert left == set(), "something half-written is left"
    bugs = Path(os.environ["IFAS_HOME"]) / "bugs"
    assert not bugs.exists()


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("run", "-c", "nothing"), "unknown profile", 2),
        (("serve", ".", "--port", "99999"), "--port", 2),
        (("config", "show", "tiny", "-s", "a=["), "not valid YAML", 2),
    ],
)
def test_the_installed_command_does_the_same(arguments: tuple[str, ...], words: str, code: int, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("ifas")), *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_is_named(tmp_path: Path, unbuffered: str) -> None:
    """Standard output on a full disk, with the installed command. Buffered output fails only at the end."""
    command = [str(Path(sys.executable).with_name("ifas")), "config", "show", "tiny"]
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            command, cwd=tmp_path, env=env, stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 9, done.stderr
    assert "no space" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_bug_is_called_one_and_its_traceback_is_in_a_file(ifas, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ifas.core.config.profiles", lambda: 1 / 0)
    done = ifas("config", "list")
    assert done.code == 1
    assert "this is a bug of ifas: ZeroDivisionError" in done.err
    assert "Traceback" not in done.err
    (log,) = (Path(os.environ["IFAS_HOME"]) / "bugs").iterdir()
    assert str(log) in done.err
    assert "ZeroDivisionError" in log.read_text()
    assert "Traceback" in log.read_text()


def test_the_log_of_a_bug_is_for_its_user_alone_and_holds_no_password(ifas, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("no answer from postgresql://me:hunter2@host/ledger")

    monkeypatch.setattr("ifas.core.config.profiles", fail)
    done = ifas("config", "list")
    (log,) = (Path(os.environ["IFAS_HOME"]) / "bugs").iterdir()
    assert "postgresql://***@host/ledger" in log.read_text()
    assert "hunter2" not in log.read_text() + done.err
    assert log.stat().st_mode & 0o077 == 0
