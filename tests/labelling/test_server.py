"""The requests of the page and their answers, and who is kept out."""

import asyncio
import gzip
import json
import socket
import zlib

import numpy as np
import pytest

from tests.labelling.asking import Client, map_of, open_folder, open_page
from tests.support import draw, read, wait_until, write_image, write_set
from unetseg import files
from unetseg.errors import MachineError
from unetseg.labelling import server
from unetseg.labelling.project import enlarge
from unetseg.labelling.regions import find_regions
from unetseg.labelling.security import Guard, Refused, inflate
from unetseg.labelling.server import Events, LabelServer, _listen

PAINT = "api/images/0/labels?x=3&y=4&width=10&height=5&stroke=s1"


def rectangle(value=1, size=50):
    return gzip.compress(bytes([value]) * size, mtime=0)


def state_of(folder):
    """Return every file of a folder and its content."""
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# --- answers -------------------------------------------------------------------------------------


def test_the_project_lists_classes_and_images(client):
    found = client.get("api/project").json()
    assert found["classes"] == [
        {"name": "background", "colour": "#56b4e9"},
        {"name": "object", "colour": "#e69f00"},
    ]
    assert [i["name"] for i in found["images"]] == ["im0", "im1", "im2"]
    assert found["images"][0]["width"] == 56
    assert found["images"][0]["state"] == "untouched"
    assert found["next"] == 0


@pytest.mark.parametrize("compress", [gzip.compress, lambda b: zlib.compress(b, wbits=-15)])
def test_what_is_painted_comes_back_and_stands_in_the_mask(client, project, compress):
    assert client.put(PAINT, content=compress(bytes([1]) * 50)).json() == {"saved": True}
    due = np.full((64, 56), 255, np.uint8)
    due[4:9, 3:13] = 1
    np.testing.assert_array_equal(client.labels(), due)
    project.save()
    np.testing.assert_array_equal(read(project.images[0].pair.mask), due)


def test_a_stroke_that_is_sent_again_is_painted_once(client):
    client.put(PAINT, content=rectangle(1))
    client.put(PAINT.replace("s1", "s2"), content=rectangle(0))
    assert client.put(PAINT, content=rectangle(1)).json() == {"saved": True}
    assert set(client.labels()[4:9, 3:13].ravel()) == {0}


def test_a_tile_is_the_picture_in_its_window(client, folder):
    image = read(folder / "images" / "im0.png")
    answer = client.get("api/images/0/tiles/0/0/0?low=50&high=150")
    (folder / "tile.png").write_bytes(answer.content)
    due = np.clip((image.astype(float) - 50) * 2.55, 0, 255)
    assert np.abs(read(folder / "tile.png") - due).max() <= 1
    assert answer.headers["cache-control"] == "no-store"
    key = client.get("api/project").json()["key"]
    cached = client.get(f"api/images/0/tiles/0/0/0?key={key}")
    assert "max-age" in cached.headers["cache-control"]


def test_regions_follow_the_picture(client, folder):
    regions = map_of(client.get("api/images/0/regions"), "Regions", "<i4")
    assert regions.shape == (64, 56)
    np.testing.assert_array_equal(regions, find_regions(draw(0)[0]))


def test_an_answer_comes_once_there_are_two_classes(client):
    path = "api/images/0/answer"
    assert client.get(path).status_code == 204
    client.labels(0)  # which opens it
    client.paint(0, 0, 0, draw(0)[1][:30] > 0)
    wait_until(lambda: client.get(path).status_code != 204)
    answer = client.get(path)
    assert answer.headers["Answer-By"] == "head"
    assert int(answer.headers["Answer-Version"]) >= 1
    seen = map_of(answer, "Answer")
    client.post("api/images/0/accept", json={})
    np.testing.assert_array_equal(client.labels(0)[30:], enlarge(seen, (64, 56))[30:])


def test_training_is_turned_by_true_and_false_alone(client):
    for body in ("", "{}", "[]", '{"on": 1}', '{"on": "yes"}'):
        assert client.post("api/train", content=body).status_code == 400
    assert client.post("api/train", json={"on": False}).status_code == 404  # none is trained
    assert client.get("api/project").json()["training"] is None


def test_an_image_that_is_opened_comes_with_the_number_of_the_next_one(client):
    assert client.get("api/images/0/labels").headers["Labels-Next"] == "1"
    for number in (1, 2):
        client.post(f"api/images/{number}/accept", json={"empty": True})
    assert "Labels-Next" not in client.get("api/images/0/labels").headers


def test_accepting_leads_to_the_next_image(client):
    client.put(PAINT, content=rectangle())
    assert client.post("api/images/0/accept", json={"empty": False}).json()["next"] == 1
    assert client.post("api/images/1/accept", json={"empty": True}).json()["next"] == 2
    images = client.get("api/project").json()["images"]
    assert [i["state"] for i in images] == ["accepted", "empty", "untouched"]
    assert not client.labels(1).any()
    assert client.post("api/images/0/reopen").json()["state"] == "begun"


def test_the_page_that_accepts_an_image_is_named_with_its_new_labels(session):
    class Told(Events):
        def publish(self, name, data):
            told.append((name, data))

    told = []
    guard = Guard(LabelServer(session, Told()).app)
    client = Client(guard)
    client.get(f"/?token={guard.token}")
    client.post("api/images/1/accept?page=mine", json={"empty": True})
    assert told == [("labels", {"number": 1, "page": "mine"})]


def test_classes_are_added_renamed_and_left_out(client, folder):
    old = client.get("api/project").json()["classes"]
    given = [{**old[0], "name": "ground", "was": 0}, {**old[1], "was": 1}]
    given.append({"name": "new", "colour": None, "was": None})
    changed = client.put("api/classes", json={"revision": 0, "classes": given}).json()
    made = changed["classes"]
    assert (changed["was"], changed["revision"]) == ([0, 1, None], 1)
    assert [c["name"] for c in made] == ["ground", "object", "new"]
    assert made[2]["colour"] == "#009e73"  # the first default colour that is free, but black
    client.put(PAINT, content=rectangle(2))
    kept = [{"name": "ground", "colour": "#000000", "was": 0}]
    kept.append({"name": "new", "colour": "#009e73", "was": 2})
    answer = client.put("api/classes", json={"revision": 1, "classes": kept})
    assert answer.status_code == 200
    assert set(client.labels()[4:9, 3:13].ravel()) == {1}
    assert read(folder / "masks" / "im0.png")[4, 3] == 2
    refused = client.put("api/classes", json={"revision": 2, "classes": kept[:1]})
    assert refused.status_code == 422
    assert "50 pixels in im0" in refused.json()["error"]


def let_scores_fail(monkeypatch):
    """Let the file of the running score be one that cannot be written, and no other file."""
    write_bytes = files.write_bytes

    def full(path, data):
        if path.name == "scores.json":
            raise MachineError(path, "not written: the disk is full")
        write_bytes(path, data)

    monkeypatch.setattr(files, "write_bytes", full)


def test_classes_that_are_changed_are_told_though_the_score_could_not_be_written(
    client, told, monkeypatch
):
    let_scores_fail(monkeypatch)
    old = [{**c, "was": k} for k, c in enumerate(client.get("api/project").json()["classes"])]
    for revision in (0, 1):  # the page goes on with the number that it was told
        old[1]["name"] = f"name {revision}"
        answer = client.put("api/classes", json={"revision": revision, "classes": old})
        assert (answer.status_code, answer.json()["revision"]) == (200, revision + 1)
    assert any(name == "failed" and "scores.json" in data["error"] for name, data in told)


def test_an_image_is_accepted_though_the_score_could_not_be_written(
    client, session, told, monkeypatch
):
    client.put(PAINT, content=rectangle())

    with monkeypatch.context() as patch:
        let_scores_fail(patch)
        answer = client.post("api/images/0/accept", json={})
    assert (answer.status_code, answer.json()["image"]["state"]) == (200, "accepted")
    assert any(name == "failed" and "scores.json" in data["error"] for name, data in told)
    client.post("api/images/1/accept", json={"empty": True})
    scores = json.loads((session.project.home / "scores.json").read_bytes())
    assert [one["image"] for one in scores["accepted"]] == ["im0", "im1"]


def test_strokes_and_changes_of_classes_before_are_refused_and_later_strokes_taken(client, folder):
    old = [{**c, "was": k} for k, c in enumerate(client.get("api/project").json()["classes"])]
    more = [*old, {"name": "new", "colour": None, "was": None}]
    assert client.put("api/classes", json={"revision": 0, "classes": more}).status_code == 200
    late = client.put("api/classes", json={"revision": 0, "classes": old})
    assert (late.status_code, late.json()["error"]) == (
        422,
        "classes: changed elsewhere meanwhile; try again",
    )
    assert len(client.get("api/project").json()["classes"]) == 3
    # More classes leave the numbers of the others, one less does not.
    assert client.put(f"{PAINT}&revision=0", content=rectangle(1)).status_code == 200
    less = [{**c, "was": k} for c, k in zip(more[::2], (0, 2), strict=True)]
    client.put(PAINT.replace("stroke=", "stroke=again"), content=rectangle(0))
    less[1]["colour"] = "#123456"
    assert client.put("api/classes", json={"revision": 1, "classes": less}).status_code == 200
    refused = client.put(f"{PAINT.replace('stroke=', 'stroke=b')}&revision=1", content=rectangle(1))
    assert refused.status_code == 422
    taken = client.put(f"{PAINT.replace('stroke=', 'stroke=c')}&revision=2", content=rectangle(1))
    assert taken.status_code == 200


def test_an_image_that_vanishes_is_said_and_the_others_go_on(client, session, folder):
    (folder / "images" / "im1.png").unlink()
    with session.pictures._reading[1]:  # it may have been looked at already, ahead of its turn
        session.pictures._kept.clear()
    answer = client.get("api/images/1/tiles/0/0/0")
    assert answer.status_code == 422
    assert "im1.png: not found" in answer.json()["error"]
    assert client.get("api/images/0/tiles/0/0/0").status_code == 200


# --- who is kept out -----------------------------------------------------------------------------


def test_nothing_is_answered_without_the_token(guard, folder):
    before = state_of(folder)
    client = Client(guard)
    for path in ("/", "/api/project", "/page/main.js", "/?token=", "/?token=wrong", "/nowhere"):
        assert client.get(path).status_code == 401, path
    assert client.put(PAINT, content=rectangle()).status_code == 401
    assert client.post("api/images/0/accept").status_code == 401
    assert (
        client.post(f"/?token={guard.token}").status_code == 401
    )  # the token opens the page alone
    client.cookies.set("unetseg-00000000", guard.token)
    assert client.get("/api/project").status_code == 401
    assert state_of(folder) == before


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9999", "http://localhost:8421", ""]
)
def test_pages_of_other_origins_change_and_read_nothing(client, folder, origin):
    before = state_of(folder)
    assert client.put(PAINT, content=rectangle(), headers={"Origin": origin}).status_code == 403
    assert client.get("api/project", headers={"Origin": origin}).status_code == 403
    assert state_of(folder) == before


def test_only_this_machine_can_connect():
    with _listen(None) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"


def test_two_servers_that_start_at_the_same_moment_listen_at_ports_of_their_own(monkeypatch):
    bind = socket.socket.bind
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]

        def bind_beside_the_other(self, address):
            bind(self, address)  # neither listens yet, so the system allows it
            if address[1] == port:
                other.listen()

        monkeypatch.setattr(socket.socket, "bind", bind_beside_the_other)
        monkeypatch.setattr(server, "PORT", port)
        with _listen(None) as listening:
            assert listening.getsockname()[1] != port


def test_a_change_without_an_origin_is_refused(guard, client):
    client.headers = {}
    assert client.put(PAINT, content=rectangle()).status_code == 403
    assert client.get("api/project").status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8421", "localhost.evil.example", "127.0.0.1.evil.example"),
        *("", "localhost:x", "evil@localhost", "localhost/evil", "127.0.0.2", "0.0.0.0"),
    ],
)
def test_a_forged_host_is_refused_even_with_the_cookie(client, folder, host):
    before = state_of(folder)
    given = {"Host": host, "Origin": f"http://{host}"}
    assert client.get("api/project", headers=given).status_code == 403
    assert client.put(PAINT, content=rectangle(), headers=given).status_code == 403
    assert state_of(folder) == before


@pytest.mark.parametrize("host", ["localhost:9000", "LOCALHOST", "127.0.0.1:1", "[::1]:80"])
def test_a_forwarded_port_is_this_machine(client, host):
    given = {"Host": host, "Origin": f"http://{host}"}
    assert client.put(PAINT, content=rectangle(), headers=given).status_code == 200


def test_a_proxy_is_let_through_under_the_name_that_was_given(session):
    guard = Guard(LabelServer(session, Events()).app, ["hub.example"])
    client = Client(guard, "http://hub.example", origin="https://hub.example")
    assert client.get(f"/?token={guard.token}").status_code == 200
    assert client.put(PAINT, content=rectangle()).status_code == 200
    rewritten = {"Host": "localhost:8421"}
    assert client.put(PAINT, content=rectangle(), headers=rewritten).status_code == 200
    other = {"Origin": "https://evil.example"}
    assert client.put(PAINT, content=rectangle(), headers=other).status_code == 403


@pytest.mark.parametrize("returns", [True, False])
def test_a_page_that_left_or_came_back_is_not_counted_twice(returns):
    async def watch():
        events = Events()
        before, other = events.stream("one"), events.stream("two")
        await anext(before), await anext(other)
        if returns:
            await anext(events.stream("one"))
        else:
            events.leave("one")
        assert not [text async for text in before if "\nevent" in text]
        told = [await anext(other) for _ in range(3)][1:]
        return [json.loads(text.partition("data: ")[2])["count"] for text in told]

    assert asyncio.run(watch()) == [2, 2 if returns else 1]


def test_every_answer_keeps_other_pages_out(guard, client):
    for answer in (client.get("/api/project"), Client(guard).get("/"), client.get("/nowhere")):
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    cookie = Client(guard).get(f"/?token={guard.token}").headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "samesite=strict" in cookie.lower()
    assert guard.token not in cookie


@pytest.mark.parametrize(
    "path",
    [
        *("page/../server.py", "page/..%2fserver.py", "page/%2e%2e/%2e%2e/cli/app.py"),
        *("page//etc/passwd", "page/..\\server.py", "page/", "page/.", "page/index.html%00"),
        *("api/images/-1/labels", "api/images/3/labels", "api/images/99999999999999999999/range"),
        *("api/images/..%2f0/labels", "api/images/im0/labels", "images/im0.png", "masks/im0.png"),
        *("api/images/0/tiles/9/0/0", "api/images/0/tiles/0/1/0", "api/images/0/tiles/0/0/-1"),
    ],
)
def test_a_path_leads_nowhere_but_to_the_page_and_to_numbers(client, folder, path):
    before = state_of(folder)
    answer = client.get(path)
    assert answer.status_code == 404
    assert "error" in answer.json()
    for method in ("PUT", "POST"):
        assert client.request(method, path, content=rectangle()).status_code in (400, 404, 405)
    assert state_of(folder) == before


@pytest.mark.parametrize(
    "query",
    [
        *("low=5&high=5", "low=nan&high=1", "low=x&high=y", "low=1", "high=1,2", "channels=1"),
        *("channels=0,0,0,0", "channels=-1", "channels=1e9", "low=0,0&high=1,1"),
    ],
)
def test_a_window_that_is_none_is_refused(client, query):
    assert client.get(f"api/images/0/tiles/0/0/0?{query}").status_code == 400


# --- bodies --------------------------------------------------------------------------------------


def query(**changes):
    given = {"x": 3, "y": 4, "width": 10, "height": 5, "stroke": "s1"} | changes
    return "api/images/0/labels?" + "&".join(f"{k}={v}" for k, v in given.items())


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (query(), b"", 400),
        (query(), b"no compression at all", 400),
        (query(), rectangle()[:-9], 400),  # cut off
        (query(), rectangle() + b"more", 400),
        (query(), rectangle(size=49), 400),
        (query(), rectangle(size=51), 400),
        (query(), gzip.compress(bytes(10_000_000), mtime=0), 413),  # a bomb, and too long already
        (query(), gzip.compress(bytes(500_000), mtime=0), 400),  # a bomb that fits
        (query(), bytes(2000), 413),
        (query(), rectangle(2), 422),  # no such class
        (query(x=50), rectangle(), 400),
        (query(y=60), rectangle(), 400),
        (query(x=-1), rectangle(), 400),
        (query(x="3.0"), rectangle(), 400),
        (query(width=0), rectangle(), 400),
        (query(width=10**9), rectangle(), 400),
        (query(width=5, height=2**40), rectangle(), 400),
        (query(stroke="../../evil"), rectangle(), 400),
        (query(stroke="a" * 101), rectangle(), 400),
        ("api/images/0/labels", rectangle(), 400),
        ("api/images/7/labels?x=0&y=0&width=10&height=5", rectangle(), 404),
    ],
)
def test_a_malformed_stroke_is_refused_and_nothing_written(client, folder, path, body, status):
    before = state_of(folder)
    answer = client.put(path, content=body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert state_of(folder) == before
    assert (client.labels() == 255).all()


def test_a_body_without_an_announced_length_is_bounded_as_well(client, folder):
    before = state_of(folder)
    sent = []

    async def endless():
        for number in range(1000):
            sent.append(number)
            yield bytes(10_000)

    answer = client.put(PAINT, content=endless())
    assert answer.status_code == 413
    assert len(sent) < 5
    assert state_of(folder) == before


def classes(given, revision=0):
    """Return the body that changes the classes of a revision."""
    return json.dumps({"revision": revision, "classes": given})


NEW = {"name": "new", "colour": "#009e73", "was": None}
OLD = [
    {"name": "background", "colour": "#000000", "was": 0},
    {"name": "object", "colour": "#e69f00", "was": 1},
]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("[" * 100_000, 400),
        (" " * 300_000, 413),
        ("{}", 422),
        ("[]", 422),
        ("[1]", 422),
        (json.dumps({"classes": OLD}), 422),
        (classes(OLD, revision=1), 422),
        (classes([*OLD, {**NEW, "name": ""}]), 422),
        (classes([*OLD, {**NEW, "name": "object"}]), 422),
        (classes([*OLD, {**NEW, "name": "\u202e\n"}]), 422),
        (classes([*OLD, {**NEW, "name": "\ud800"}]), 422),
        (classes([*OLD, {**NEW, "name": 5}]), 422),
        (classes([*OLD, {**NEW, "colour": "red"}]), 422),
        (classes([*OLD, {**NEW, "colour": "#00000g"}]), 422),
        (classes([*OLD, {**NEW, "was": 2}]), 422),
        (classes([*OLD, {**NEW, "was": -1}]), 422),
        (classes([*OLD, {**NEW, "was": True}]), 422),
        (classes(OLD[::-1]), 422),
        (classes([OLD[0], OLD[0]]), 422),
        (classes([OLD[0], NEW, OLD[1]]), 422),
        (classes([*OLD, *({**NEW, "name": str(k)} for k in range(254))]), 422),
    ],
)
def test_malformed_classes_are_refused_and_nothing_written(client, folder, body, status):
    before = state_of(folder)
    answer = client.put("api/classes", content=body)
    assert answer.status_code == status
    assert answer.json()["error"]
    assert state_of(folder) == before


def test_inflating_stops_at_the_size_that_is_due():
    bomb = zlib.compress(bytes(2**28), wbits=-15)
    with pytest.raises(Refused):
        inflate(bomb, 50)
    assert inflate(zlib.compress(b"ab", wbits=-15), 2) == b"ab"


def test_a_set_of_colours_keeps_the_colours_of_its_masks(tmp_path):
    toml = '[[class]]\nname = "a"\ncolour = "#000000"\n[[class]]\nname = "b"\ncolour = "#ff0000"\n'
    write_set(tmp_path / "set", 2, values=(0, 0, 0), toml=toml)
    with open_folder(tmp_path / "set") as session:
        _, client = open_page(session)
        old = [{**c, "was": k} for k, c in enumerate(client.get("api/project").json()["classes"])]
        old[1]["colour"] = "#00ff00"
        refused = client.put("api/classes", json={"revision": 0, "classes": old})
    assert refused.status_code == 422
    assert "stands for it in the masks" in refused.json()["error"]


def test_sixteen_bits_are_shown_in_the_window_of_their_range(tmp_path):
    image = np.linspace(1000, 3000, 64 * 64).astype(np.uint16).reshape(64, 64, 1)
    write_image(tmp_path / "deep", image)
    with open_folder(tmp_path) as session:
        _, client = open_page(session)
        (tmp_path / "tile").write_bytes(client.get("api/images/0/tiles/0/0/0").content)
        found = client.get("api/images/0/range").json()["channels"]
    shown = read(tmp_path / "tile")
    assert (shown.min(), shown.max()) == (0, 255)
    assert found[0]["min"] == 1000
    assert found[0]["high"] == pytest.approx(np.percentile(image, 99.8))
