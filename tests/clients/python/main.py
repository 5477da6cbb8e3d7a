"""The main calls of the Python client `etcd3`, against a server given as HOST:PORT.

Each function is one case; an assertion that fails ends the process with its traceback. Users are not
among them: this client sends a password's token over TLS only.
"""

import io
import sys
import threading

import etcd3


def kv(client):
    client.put("python/kv/a", "1")
    value, meta = client.get("python/kv/a")
    assert value == b"1" and meta.key == b"python/kv/a" and meta.version == 1, (value, meta)
    client.put("python/kv/b", "2")
    client.put("python/kv/c", "3")
    found = [value for value, _ in client.get_prefix("python/kv/", sort_order="descend", sort_target="key")]
    assert found == [b"3", b"2", b"1"], found
    found = [meta.key for _, meta in client.get_range("python/kv/a", "python/kv/c")]
    assert found == [b"python/kv/a", b"python/kv/b"], found
    assert client.put("python/kv/a", "4", prev_kv=True).prev_kv.value == b"1"
    assert client.get("python/none") == (None, None)
    assert client.delete("python/kv/a") and not client.delete("python/kv/a")
    assert client.delete_prefix("python/kv/").deleted == 2


def transaction(client):
    assert client.put_if_not_exists("python/txn", "1")
    assert not client.put_if_not_exists("python/txn", "2")
    assert client.replace("python/txn", "1", "3")
    assert not client.replace("python/txn", "1", "4")
    succeeded, answers = client.transaction(
        compare=[client.transactions.value("python/txn") == "3", client.transactions.version("python/txn") > 1],
        success=[client.transactions.put("python/txn", "5"), client.transactions.get("python/txn")],
        failure=[client.transactions.delete("python/txn")],
    )
    assert succeeded and answers[1][0][0] == b"5", answers


def watch(client):
    seen = []
    done = threading.Event()

    def heard(response):
        seen.extend((type(event).__name__, event.key, event.value) for event in response.events)
        if len(seen) == 3:
            done.set()

    watch_id = client.add_watch_prefix_callback("python/watch/", heard)
    for value in ("1", "2"):
        client.put("python/watch/a", value)
    client.delete("python/watch/a")
    assert done.wait(10), seen
    client.cancel_watch(watch_id)
    expected = [("PutEvent", b"1"), ("PutEvent", b"2"), ("DeleteEvent", b"")]
    assert seen == [(kind, b"python/watch/a", value) for kind, value in expected], seen
    # From the past: what happened before the watch began.
    _, meta = client.get("python/txn")
    events, cancel = client.watch("python/txn", start_revision=meta.create_revision)
    values = [next(events).value for _ in range(2)]
    cancel()
    assert values == [b"1", b"3"], values


def lease(client):
    lease = client.lease(30)
    client.put("python/lease", "1", lease=lease)
    info = client.get_lease_info(lease.id)
    assert info.grantedTTL == 30 and 0 < info.TTL <= 30 and list(info.keys) == [b"python/lease"], info
    assert [answer.TTL for answer in lease.refresh()] == [30]
    lease.revoke()
    assert client.get("python/lease") == (None, None)


def lock(client):
    with client.lock("python", ttl=20) as lock:
        assert lock.is_acquired()
        assert not client.lock("python", ttl=20).acquire(timeout=0.2)
    assert not lock.is_acquired()


def cluster(client):
    members = list(client.members)
    assert len(members) == 1 and members[0].name == "default", members
    status = client.status()
    assert status.leader.id == members[0].id and status.version.startswith("3."), status
    assert list(client.list_alarms()) == []
    assert client.hash() > 0
    client.defragment()
    _, meta = client.get("python/txn")
    client.compact(meta.mod_revision)
    try:
        events, _ = client.watch("python/txn", start_revision=1)
        next(events)
    except etcd3.exceptions.RevisionCompactedError as refused:
        assert refused.compacted_revision == meta.mod_revision, refused.compacted_revision
    else:
        raise AssertionError("a watch from a compacted revision begins")
    snapshot = io.BytesIO()
    client.snapshot(snapshot)
    # A bbolt file: its first page says so, and a checksum of 32 bytes ends it.
    assert snapshot.getvalue()[16:20] == bytes.fromhex("edda0ced"), snapshot.getvalue()[:32]
    assert len(snapshot.getvalue()) % 512 == 32


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    client = etcd3.client(host=host, port=int(port))
    for case in (kv, transaction, watch, lease, lock, cluster):
        case(client)
        print(f"python: {case.__name__}")
    client.close()


main()
