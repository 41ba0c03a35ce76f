"""What every store does: one suite for S3, DynamoDB and the one in memory, and what the first two do in trouble."""

from __future__ import annotations

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.handlers import add_expect_header

from bridge.errors import StoreUnavailable
from bridge.idempotency import dynamodb_store, s3_store
from bridge.idempotency.claiming import Claim, Claimer, ClaimingRun
from bridge.idempotency.dynamodb_store import DynamoDBStore
from bridge.idempotency.factory import open_store
from bridge.idempotency.identity import ClaimRequest, of_key
from bridge.idempotency.record import Record, from_json, to_json
from bridge.idempotency.s3_store import S3Store
from bridge.idempotency.store import Refused, Stored
from bridge.idempotency.transitions import Busy, Done
from tests.unit.idempotency.memory_store import MemoryStore

EXPIRES_AT = 2_000_000_000
THREADS = 20
REGION = "us-east-1"


def s3_of(aws):
    """A store in the bucket, of this test alone."""
    return at_once(S3Store(aws.bucket, f"claims/{uuid.uuid4().hex[:8]}", REGION))


def at_once(store):
    """The store, without the second that botocore waits for "100 Continue", which the proxy does not answer."""
    made = store._client.get

    def get():
        client = made()
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client

    store._client.get = get
    return store


def dynamodb_of(aws):
    """A store in the table."""
    return DynamoDBStore(aws.table, REGION)


AWS_STORES = {"s3": s3_of, "dynamodb": dynamodb_of}


@pytest.fixture(params=["memory", "memory-tells", "s3", "dynamodb"])
def store(request):
    """Each store in turn."""
    if request.param.startswith("memory"):
        tells = request.param == "memory-tells"
        return MemoryStore(refusal_tells=tells, content_tags=not tells)
    return AWS_STORES[request.param](request.getfixturevalue("aws"))


@pytest.fixture(params=["s3", "dynamodb"])
def aws_store(request, aws):
    """The two real stores in turn."""
    return AWS_STORES[request.param](aws)


@pytest.fixture
def impatient(monkeypatch, proxy):
    """Let stores give up at the first failure, and soon: what the SDK tries again by itself is its own affair."""
    for module in (s3_store, dynamodb_store):
        once = module.CONFIG.merge(
            module.Config(read_timeout=0.5, connect_timeout=0.5, retries={"total_max_attempts": 1})
        )
        monkeypatch.setattr(module, "CONFIG", once)


@pytest.fixture
def record_id():
    """An id that no other test uses."""
    return f"task/{uuid.uuid4().hex}/{uuid.uuid4().hex}"


def a_claim_request():
    """Something to claim that no other test wants."""
    return of_key("tests.task", uuid.uuid4().hex)


def a_run(message="m1", receives=1, seconds=60.0):
    """A run with a token of its own."""
    return ClaimingRun(f"{message}/{receives}/{uuid.uuid4().hex[:6]}", message, receives, seconds)


def claimer_of(store):
    """A claimer on it."""
    return Claimer(store, ttl_seconds=86_400)


def kept(store, claim_request):
    """The record as it is in the store."""
    stored = store.read(claim_request.id)
    assert stored is not None
    return from_json(stored.text)


# ---- one contract


def test_nothing_is_read_where_nothing_is(store, record_id):
    """No record is None, and no error."""
    assert store.read(record_id) is None


def test_what_is_created_is_read(store, record_id):
    """The very text, and the tag that the creation gave."""
    tag = store.create(record_id, '{"a": "ü\\n"}', EXPIRES_AT)
    assert isinstance(tag, str)
    assert store.read(record_id) == Stored('{"a": "ü\\n"}', tag)


@pytest.mark.parametrize("text", ["x", "ü€😀 \u2028 \t\r\n", "0" * 70_000], ids=["short", "unicode", "70 kB"])
def test_any_text_is_kept(store, record_id, text):
    """Also one with the largest checkpoint."""
    store.create(record_id, text, EXPIRES_AT)
    assert store.read(record_id).text == text


def test_what_is_there_is_not_created_again(store, record_id):
    """The second is refused, and told what is there where the store can."""
    tag = store.create(record_id, "first", EXPIRES_AT)
    refused = store.create(record_id, "second", EXPIRES_AT)
    assert refused == Refused(Stored("first", tag) if store.refusal_tells else None)
    assert store.read(record_id) == Stored("first", tag)


def test_what_was_read_is_replaced(store, record_id):
    """With a new tag, which is the only one that counts from then on."""
    old = store.create(record_id, "first", EXPIRES_AT)
    new = store.replace(record_id, "second", old, EXPIRES_AT)
    assert isinstance(new, str)
    assert new != old
    assert store.read(record_id) == Stored("second", new)
    late = store.replace(record_id, "late", old, EXPIRES_AT)
    assert late == Refused(Stored("second", new) if store.refusal_tells else None)
    assert store.read(record_id) == Stored("second", new)


def test_what_is_not_there_is_not_replaced(store, record_id):
    """A record that has expired meanwhile is not brought back."""
    other = store.create(f"{record_id}-other", "text", EXPIRES_AT)
    assert store.replace(record_id, "text", other, EXPIRES_AT) == Refused(None)
    assert store.read(record_id) is None


def test_ids_do_not_meet(store):
    """Whatever task names and keys are made of, each has its own record."""
    run = uuid.uuid4().hex
    claim_requests = [
        of_key(task, f"{run}{key}") for task in ("a", "a/b", "a%2Fb", "a b", "ü", "a.b") for key in ("k", "K")
    ]
    for claim_request in claim_requests:
        assert isinstance(store.create(claim_request.id, claim_request.id, EXPIRES_AT), str)
    assert [store.read(claim_request.id).text for claim_request in claim_requests] == [
        claim_request.id for claim_request in claim_requests
    ]


def all_at_once(call):
    """The answers of twenty threads that call at the same moment."""
    barrier = threading.Barrier(THREADS)

    def meet(number):
        barrier.wait(30)
        return call(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(meet, range(THREADS)))


def test_of_twenty_creators_one_wins(store, record_id):
    """And what it wrote is what is there."""
    answers = all_at_once(lambda n: store.create(record_id, f"text {n}", EXPIRES_AT))
    (winner,) = [n for n, answer in enumerate(answers) if isinstance(answer, str)]
    assert store.read(record_id) == Stored(f"text {winner}", answers[winner])


def test_of_twenty_replacers_one_wins(store, record_id):
    """All had read the same; the others have to read again."""
    tag = store.create(record_id, "first", EXPIRES_AT)
    answers = all_at_once(lambda n: store.replace(record_id, f"text {n}", tag, EXPIRES_AT))
    (winner,) = [n for n, answer in enumerate(answers) if isinstance(answer, str)]
    assert store.read(record_id) == Stored(f"text {winner}", answers[winner])


@pytest.mark.parametrize("receives", [1, 2])
def test_of_twenty_runs_one_claims(store, receives):
    """Twenty deliveries at once: one run, and nineteen that are told to wait."""
    claimer, claim_request = claimer_of(store), a_claim_request()
    answers = all_at_once(lambda n: claimer.acquire(claim_request, a_run(f"m{n}", receives)))
    (claim,) = [answer for answer in answers if isinstance(answer, Claim)]
    assert sum(isinstance(answer, Busy) for answer in answers) == THREADS - 1
    claim.complete({"n": 1})
    assert all(
        answer == Done({"n": 1}) for answer in all_at_once(lambda n: claimer.acquire(claim_request, a_run(f"x{n}")))
    )


def test_of_twenty_take_overs_one_wins(store):
    """When a claim has ended by itself and all its duplicates notice at once."""
    claimer, claim_request = claimer_of(store), a_claim_request()
    lost = claimer.acquire(claim_request, a_run("m0", seconds=-1.0))
    answers = all_at_once(lambda n: claimer.acquire(claim_request, a_run(f"m{n}", 2)))
    (claim,) = [answer for answer in answers if isinstance(answer, Claim)]
    assert claim.took_over
    assert isinstance(lost, Claim)
    claim.complete(None)


def test_a_claim_through_its_life(store):
    """Claimed, checkpointed, failed, claimed again with both, completed, done."""
    claimer, claim_request = claimer_of(store), a_claim_request()
    first = claimer.acquire(claim_request, a_run())
    assert first.progress == {}
    first.save({"part": 1})
    first.save({"part": 2})
    first.release(failed=True)
    second = claimer.acquire(claim_request, a_run(receives=2))
    assert (second.retries, second.progress) == (1, {"part": 2})
    second.complete({"rows": 3})
    assert claimer.acquire(claim_request, a_run("m2")) == Done({"rows": 3})


def test_all_records_of_a_folder_are_listed(store):
    """Each once, with its text where the store tells it, and none of another task's, however alike their names are."""
    task = f"task-{uuid.uuid4().hex}"
    ids = {f"{task}/{uuid.uuid4().hex}/{name}" for name in ("latest", "a", "b") for _ in range(4)}
    for number, record_id in enumerate(sorted(ids)):
        store.create(record_id, f"text {number}", EXPIRES_AT)
    store.create(f"{task}2/o/e", "another task", EXPIRES_AT)
    found = list(store.records(f"{task}/"))
    assert len(found) == len(ids)
    told = {record_id: store.read(record_id).text if store.refusal_tells else None for record_id in ids}
    assert dict(found) == told
    assert list(store.records(f"{task}3/")) == []


# ---- the urls


def test_a_store_is_opened_by_its_url():
    """And asked nothing yet; the prefix may have slashes around it."""
    bucket = open_store("s3://claims/some/prefix/", None)
    assert (type(bucket), bucket.url) == (S3Store, "s3://claims/some/prefix")
    table = open_store("dynamodb://claims", "eu-west-1")
    assert (type(table), table.url) == (DynamoDBStore, "dynamodb://claims")


def test_s3_records_are_json_objects_under_the_prefix(aws, record_id):
    """Where the lifecycle rule, the own-output rule and a person look for them."""
    S3Store(aws.bucket, "claims", REGION).create(record_id, "{}", EXPIRES_AT)
    found = aws.s3.get_object(Bucket=aws.bucket, Key=f"claims/{record_id}.json")
    with found["Body"] as body:
        assert body.read() == b"{}"
    assert found["ContentType"] == "application/json"


def test_dynamodb_items_have_the_ttl_attribute(aws, record_id):
    """``expires_at`` is a number of whole seconds, else DynamoDB's TTL leaves the item alone."""
    store = dynamodb_of(aws)
    tag = store.create(record_id, "{}", EXPIRES_AT)
    store.replace(record_id, "[]", tag, EXPIRES_AT + 1)
    item = aws.dynamodb.get_item(TableName=aws.table, Key={"id": {"S": record_id}})["Item"]
    assert item["expires_at"] == {"N": str(EXPIRES_AT + 1)}
    assert item["record"] == {"S": "[]"}
    assert set(item) == {"id", "record", "tag", "expires_at"}


# ---- what it costs


def calls_of(proxy, action):
    """How many calls reached AWS while ``action`` ran, and what it returned."""
    before = len(proxy.calls)
    answer = action()
    return len(proxy.calls) - before, answer


@pytest.mark.parametrize(("kind", "duplicate_calls"), [("s3", 2), ("dynamodb", 1)])
def test_store_calls_of_a_task(aws, proxy, kind, duplicate_calls):
    """Two on the first delivery; one on a repeat, and two for S3 when the repeat is a message of its own."""
    claimer, claim_request = claimer_of(AWS_STORES[kind](aws)), a_claim_request()

    def first_delivery():
        claimer.acquire(claim_request, a_run("m1")).complete(None)

    assert calls_of(proxy, first_delivery)[0] == 2
    assert calls_of(proxy, lambda: claimer.acquire(claim_request, a_run("m1", receives=2))) == (1, Done(None))
    assert calls_of(proxy, lambda: claimer.acquire(claim_request, a_run("m2"))) == (duplicate_calls, Done(None))


@pytest.mark.parametrize("kind", AWS_STORES)
def test_store_calls_of_a_failing_task(aws, proxy, kind):
    """Two for the run that fails, one for each checkpoint, and no more than three for the run after it."""
    claimer, claim_request = claimer_of(AWS_STORES[kind](aws)), a_claim_request()

    def failing_run():
        claim = claimer.acquire(claim_request, a_run("m1"))
        claim.save({"part": 1})
        claim.release(failed=True)

    def good_run():
        claimer.acquire(claim_request, a_run("m1", receives=2)).complete(None)

    assert calls_of(proxy, failing_run)[0] == 3
    assert calls_of(proxy, good_run)[0] == 3


# ---- trouble

BREAKAGES = {
    "internal error": lambda proxy: proxy.fail(status=500, code="InternalError", times=None),
    "throttled": lambda proxy: proxy.fail(status=503, code="SlowDown", times=None),
    "access denied": lambda proxy: proxy.fail(status=403, code="AccessDenied", times=None),
    "expired token": lambda proxy: proxy.fail(status=400, code="ExpiredTokenException", times=None),
    "reset": lambda proxy: proxy.reset(times=None),
    "hanging": lambda proxy: proxy.hang(times=None),
    "answer lost": lambda proxy: proxy.drop_response(times=None),
}


def assert_unavailable(store, record_id, tag='"0123"'):
    """Every method raises StoreUnavailable in one line that names the store."""
    calls = (
        lambda: store.read(record_id),
        lambda: store.create(record_id, "{}", EXPIRES_AT),
        lambda: store.replace(record_id, "{}", tag, EXPIRES_AT),
    )
    for call in calls:
        with pytest.raises(StoreUnavailable) as caught:
            call()
        text = str(caught.value)
        assert text.startswith(f"{store.url}: ")
        assert "\n" not in text
        assert len(text) < 500


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_trouble_is_never_taken_for_an_answer(aws_store, impatient, proxy, record_id, breakage):
    """Neither for "no record" nor for "refused"; afterwards the same store answers again."""
    BREAKAGES[breakage](proxy)
    assert_unavailable(aws_store, record_id)
    proxy.clear()
    found = aws_store.read(record_id)
    assert (found is not None) == (breakage == "answer lost")


def test_a_store_that_is_down(aws_store, impatient, proxy, record_id):
    """Nothing listens at its address: unavailable, and available again when it is back."""
    with proxy.refusing():
        assert_unavailable(aws_store, record_id)
    assert aws_store.read(record_id) is None


def test_a_bucket_that_is_not_there(impatient, aws, record_id):
    """Above all the read: an answer of "no such record" would run every task blind."""
    assert_unavailable(at_once(S3Store("no-such-bucket-here", "p", REGION)), record_id)


def test_a_table_that_is_not_there(impatient, aws, record_id):
    """The error has AWS's own word for it."""
    store = DynamoDBStore("no-such-table", REGION)
    assert_unavailable(store, record_id)
    with pytest.raises(StoreUnavailable, match="ResourceNotFoundException"):
        store.read(record_id)


def test_a_table_with_another_key(impatient, aws, record_id):
    """A table whose partition key is not ``id`` cannot be used, and says so."""
    name = f"other-{uuid.uuid4().hex[:6]}"
    aws.dynamodb.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    assert_unavailable(DynamoDBStore(name, REGION), record_id)


def test_no_credentials(aws, impatient, monkeypatch, record_id):
    """What the SDK raises before it sends anything is unavailable too."""
    from bridge.s3.clients import forget_clients

    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    forget_clients()
    try:
        assert_unavailable(s3_of(aws), record_id)
        assert_unavailable(dynamodb_of(aws), record_id)
    finally:
        monkeypatch.undo()
        forget_clients()


def test_nothing_runs_while_the_store_cannot_be_asked(aws_store, impatient, proxy):
    """Through the claimer: no claim, no guess, whatever the delivery."""
    claimer, claim_request = claimer_of(aws_store), a_claim_request()
    proxy.fail(status=500, code="InternalError", times=None)
    for receives in (1, 2):
        with pytest.raises(StoreUnavailable):
            claimer.acquire(claim_request, a_run(receives=receives))
    proxy.clear()
    assert isinstance(claimer.acquire(claim_request, a_run()), Claim)


FOREIGN_BODIES = [b"", b"hello", b"\xff\xfe\x00", b"{}", b'{"schema": 99, "status": "completed"}']


@pytest.mark.parametrize("body", FOREIGN_BODIES, ids=range(len(FOREIGN_BODIES)))
def test_a_foreign_object_is_neither_read_nor_overwritten(aws, proxy, body):
    """Somebody's file under our key, or a newer worker's record: unavailable, and left as it is."""
    claim_request = a_claim_request()
    key = f"claims/{claim_request.id}.json"
    aws.s3.put_object(Bucket=aws.bucket, Key=key, Body=body)
    claimer = claimer_of(at_once(S3Store(aws.bucket, "claims", REGION)))
    for receives in (1, 2):
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            claimer.acquire(claim_request, a_run(receives=receives))
    with aws.s3.get_object(Bucket=aws.bucket, Key=key)["Body"] as found:
        assert found.read() == body


FOREIGN_ITEMS = [
    {},
    {"record": {"N": "5"}, "tag": {"S": "t"}},
    {"record": {"S": "{}"}},
    {"record": {"S": "{}"}, "tag": {"S": "t"}},
    {"tag": {"S": "t"}, "data": {"B": b"x"}},
    {"record": {"S": '{"schema": 2}'}, "tag": {"S": "t"}},
]


@pytest.mark.parametrize("item", FOREIGN_ITEMS, ids=range(len(FOREIGN_ITEMS)))
def test_a_foreign_item_is_neither_read_nor_overwritten(aws, proxy, item):
    """An item of another program under our id."""
    claim_request = a_claim_request()
    whole = {"id": {"S": claim_request.id}, **item}
    aws.dynamodb.put_item(TableName=aws.table, Item=whole)
    claimer = claimer_of(dynamodb_of(aws))
    for receives in (1, 2):
        with pytest.raises(StoreUnavailable, match="cannot be read"):
            claimer.acquire(claim_request, a_run(receives=receives))
    assert aws.dynamodb.get_item(TableName=aws.table, Key={"id": {"S": claim_request.id}})["Item"] == whole


def test_a_conflict_of_s3_is_asked_again(aws, proxy):
    """409: another conditional write was under way, so the record is read and the claim tried again."""
    claimer, claim_request = claimer_of(s3_of(aws)), a_claim_request()
    proxy.fail(status=409, code="ConditionalRequestConflict")
    calls, claim = calls_of(proxy, lambda: claimer.acquire(claim_request, a_run()))
    assert isinstance(claim, Claim)
    assert calls == 3
    proxy.fail(status=409, code="ConditionalRequestConflict")
    claim.complete("done")
    assert claimer.acquire(claim_request, a_run("m2", 2)) == Done("done")


def test_a_conflict_of_dynamodb_is_asked_again(aws, proxy):
    """A transaction of somebody's own on the item."""
    claimer, claim_request = claimer_of(dynamodb_of(aws)), a_claim_request()
    proxy.fail(action="PutItem", code="TransactionConflictException", times=2)
    claim = claimer.acquire(claim_request, a_run())
    assert isinstance(claim, Claim)
    proxy.fail(action="PutItem", code="TransactionConflictException")
    claim.complete("done")
    assert claimer.acquire(claim_request, a_run("m2")) == Done("done")


def test_a_store_that_conflicts_for_ever(aws_store, proxy):
    """A few tries, then unavailable: a run never waits for its turn without end."""
    codes = {True: "TransactionConflictException", False: "ConditionalRequestConflict"}
    proxy.fail(
        action="PutItem" if aws_store.refusal_tells else "*",
        status=400 if aws_store.refusal_tells else 409,
        code=codes[aws_store.refusal_tells],
        times=None,
    )
    with pytest.raises(StoreUnavailable):
        claimer_of(aws_store).acquire(a_claim_request(), a_run())


# ---- lost answers


def test_a_claim_whose_answer_was_lost_is_claimed(aws_store, proxy):
    """The SDK tries again, is refused by its own first try, and the run begins all the same."""
    claimer, claim_request = claimer_of(aws_store), a_claim_request()
    proxy.drop_response()
    claim = claimer.acquire(claim_request, a_run())
    assert isinstance(claim, Claim)
    assert not claim.took_over
    claim.complete("done")
    assert claimer.acquire(claim_request, a_run("m2")) == Done("done")


class DropsWrites:
    """A store behind a proxy that drops the answer to the write after each read."""

    def __init__(self, store, proxy):
        self.store = store
        self.proxy = proxy
        self.refusal_tells = store.refusal_tells
        self.create = store.create
        self.replace = store.replace

    def read(self, record_id):
        """Let the read through, and set the trap."""
        found = self.store.read(record_id)
        self.proxy.drop_response()
        return found


def test_a_take_over_whose_answer_was_lost_is_claimed(aws_store, proxy):
    """A replace as well as a create."""
    claim_request, run = a_claim_request(), a_run("m1", receives=2)
    claimer_of(aws_store).acquire(claim_request, a_run("m1", seconds=-1.0))
    store = DropsWrites(aws_store, proxy)
    store.refusal_tells = False  # reads first, then replaces
    claim = claimer_of(store).acquire(claim_request, run)
    assert isinstance(claim, Claim)
    assert claim.took_over
    assert kept(aws_store, claim_request).owner == run.owner


def test_changes_whose_answers_were_lost_are_made_once(aws_store, proxy):
    """A checkpoint, a failure that is counted once, and a completion."""
    claimer, claim_request = claimer_of(aws_store), a_claim_request()
    claim = claimer.acquire(claim_request, a_run())
    proxy.drop_response()
    claim.save({"part": 1})
    assert kept(aws_store, claim_request).progress == {"part": 1}
    proxy.drop_response()
    claim.release(failed=True)
    assert kept(aws_store, claim_request).failures == {"m1": 1}
    again = claimer.acquire(claim_request, a_run(receives=2))
    assert again.retries == 1
    proxy.drop_response()
    again.complete({"rows": 1})
    assert kept(aws_store, claim_request).status == "completed"


def test_a_completion_that_came_through_unheard_is_not_lost(aws_store, impatient, proxy):
    """The store took it and nobody was told: the next try finds its own text and is content."""
    claimer, claim_request = claimer_of(aws_store), a_claim_request()
    claim = claimer.acquire(claim_request, a_run())
    proxy.drop_response()
    claim.complete({"rows": 1})
    assert claimer.acquire(claim_request, a_run("m2")) == Done({"rows": 1})


def test_a_release_for_a_lost_run_whose_answer_was_lost_counts_once(aws_store, impatient, proxy):
    """The parent tries again, and finds nothing left to release."""
    claim_request, run = a_claim_request(), a_run()
    claimer_of(aws_store).acquire(claim_request, run)
    with pytest.raises(StoreUnavailable):
        claimer_of(DropsWrites(aws_store, proxy)).release(claim_request, run, failed=True)
    assert claimer_of(aws_store).release(claim_request, run, failed=True) is None
    assert kept(aws_store, claim_request).failures == {"m1": 1}


def test_a_release_for_a_lost_run_whose_answer_the_sdk_asks_for_again(aws_store, proxy):
    """Then the parent even learns the count."""
    claim_request, run = a_claim_request(), a_run()
    claimer_of(aws_store).acquire(claim_request, run)
    assert claimer_of(DropsWrites(aws_store, proxy)).release(claim_request, run, failed=True) == 1
    assert kept(aws_store, claim_request).failures == {"m1": 1}


def test_a_record_written_by_hand_is_understood(aws_store, proxy):
    """The text is the whole of it: what another tool wrote in this form counts."""
    claim_request = ClaimRequest(id=a_claim_request().id, event="e")
    done = Record(status="completed", event="e", done_event="e", expires_at=EXPIRES_AT, result=5)
    aws_store.create(claim_request.id, to_json(done), EXPIRES_AT)
    assert claimer_of(aws_store).acquire(claim_request, a_run()) == Done(5)
