"""Requests that a stranger might send: hypothesis strategies for images, forms and the two tensor protocols.

A case is sound HTTP with a body that mostly is not what its path takes. What the numbers are like: at every edge of the
types, and far beyond them.
"""

import base64
import json

from hypothesis import strategies as st

from tests.hostile.corpus import SEEDS, grey

JSON_LENGTH = "Inference-Header-Content-Length"
PATHS = ["/v2/models/numbers/infer", "/v2/models/pictures/infer", "/v2/models/pictures/versions/1/infer"]
VERBS = ["predict", "classify", "regress"]
EDGES = [-1, 0, 1, 2, 4, 255, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**30]
# What a JSON parser may meet where a value should be; put into the text as it stands.
ODD = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0.0",
    "1_0",
    "0x1",
    "9" * 400,
    "1.",
    '"\\ud800"',
    '"\\u0000"',
    "",
    "[" * 9000,
]
ODD += ["[" * 500 + "]" * 500, '{"a":' * 500 + "1" + "}" * 500, "tru", "'x'", "\x00", "//"]
HEADERS = [
    ("Content-Encoding", "gzip"),
    ("Content-Encoding", "deflate"),
    ("Content-Encoding", "br, gzip"),
    ("Content-Type", "multipart/form-data"),
    ("Content-Type", "multipart/form-data; boundary="),
    ("Content-Type", "multipart/form-data; boundary=" + "b" * 200),
    ("Content-Type", "application/json; charset=utf-16"),
    ("Content-Type", ";;;"),
    ("x-envoy-expected-rq-timeout-ms", "nan"),
    ("x-envoy-expected-rq-timeout-ms", "-1"),
    ("x-envoy-expected-rq-timeout-ms", "9" * 50),
    ("X-Request-ID", "\x80" * 300),
    ("traceparent", "00-zz-zz-zz"),
    ("Accept-Encoding", "gzip;q=x"),
    ("Authorization", "Bearer " + "x" * 5000),
    (JSON_LENGTH, "-1"),
    (JSON_LENGTH, "9" * 30),
    (JSON_LENGTH, "ten"),
    (JSON_LENGTH, "3"),
]


class Case:
    """One request: a POST of ``body`` to ``path``."""

    def __init__(self, path: str, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.path = path
        self.body = body
        self.headers = headers or {}

    def __repr__(self) -> str:
        return f"Case({self.path!r}, {self.body[:300]!r} ({len(self.body)} bytes), {self.headers})"


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A sound image with a few changes, most of them near its start, where the structure is."""
    data = bytearray(SEEDS[draw(st.sampled_from(sorted(SEEDS)))])
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, 80) | st.integers(0, len(data))) % max(1, len(data))
        change = draw(st.sampled_from(["bit", "byte", "word", "cut", "twice", "end"]))
        if change == "bit":
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << draw(st.integers(0, 7))])
        elif change == "byte":
            data[at : at + 1] = bytes([draw(st.integers(0, 255))])
        elif change == "word":
            data[at : at + 4] = draw(
                st.sampled_from([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\0\0\0\1"])
            )
        elif change == "cut":
            del data[at : at + draw(st.integers(1, 300))]
        elif change == "twice":
            data[at:at] = data[at : at + draw(st.integers(1, 300))]
        else:
            del data[at:]
    return bytes(data)


@st.composite
def images(draw: st.DrawFn) -> Case:
    """A damaged image, or no image at all, as the body."""
    query = draw(
        st.sampled_from(["", "", "", "?top=3", "?top=-1", "?top=" + "9" * 30, "?top=%00", "?model=none", "?version=x"])
    )
    body = draw(damaged() | damaged() | damaged() | st.binary(max_size=200))
    return Case("/classify" + query, body, dict(draw(st.lists(st.sampled_from(HEADERS), max_size=1))))


@st.composite
def forms(draw: st.DrawFn) -> Case:
    """A form with good and damaged files, whose own lines may be damaged too."""
    parts = []
    for number in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(["a.png", "", '"', "x" * 300, "\u0436", "../../etc/passwd", "a\\"]))
        head = draw(
            st.sampled_from(
                [
                    f'Content-Disposition: form-data; name="f{number}"; filename="{name}"',
                    "Content-Disposition: form-data",
                    "Content-Disposition: ;;=",
                    'Content-Disposition: form-data; name="_charset_"',
                    "Content-Type: multipart/mixed; boundary=C",
                    "Content-Encoding: gzip",
                    "Content-Transfer-Encoding: base64",
                    "Content-Length: 99999999999",
                    "no colon",
                    "Content-Type: multipart/mixe\udcff",
                    "X: " + "y" * 9000,
                ]
            )
        )
        file = draw(damaged() | st.just(grey(100)))
        parts.append(b"--B\r\n" + head.encode(errors="surrogateescape") + b"\r\n\r\n" + file + b"\r\n")
    body = bytearray(b"".join(parts) + b"--B--\r\n")
    if draw(st.booleans()):
        at = draw(st.integers(0, len(body)))
        body[at : at + draw(st.integers(0, 30))] = draw(st.binary(max_size=30) | st.just(b"\r\n--B"))
    return Case("/classify", bytes(body), {"Content-Type": "multipart/form-data; boundary=B"})


LEAVES = (
    st.none()
    | st.booleans()
    | st.sampled_from(EDGES)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
)
WORDS = ["name", "shape", "datatype", "data", "parameters", "inputs", "outputs", "b64", "binary_data_size", "instances"]
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=8,
)
SHAPES = (
    st.lists(st.sampled_from(EDGES), max_size=5) | st.sampled_from([[1, 4], [1, 1], [2, 4], [1, 32, 32, 3]]) | ANYTHING
)
DATA = st.lists(LEAVES, max_size=8) | st.just([1, 2, 3, 4]) | st.just([[1, 2, 3, 4]]) | st.just(["a"]) | ANYTHING
TYPES = ["BOOL", "UINT8", "INT64", "FP16", "FP32", "FP64", "BYTES", "BF16", "fp32", ""]


@st.composite
def _text(draw: st.DrawFn, value: object) -> bytes:
    """A value as JSON, sometimes with something odd put in the place of a part of it."""
    text = json.dumps(value)
    if draw(st.integers(0, 3)) == 0:
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(ODD)) + text[at + draw(st.integers(0, 6)) :]
    return text.encode(errors="surrogatepass")


@st.composite
def tensors(draw: st.DrawFn) -> Case:
    """A request of the Open Inference Protocol, JSON or binary, with lengths that may lie."""
    inputs, after = [], b""
    for _ in range(draw(st.integers(0, 3))):
        one: dict[str, object] = {
            "name": draw(st.sampled_from(["x", "n", "text", "pixels", "y", ""])),
            "shape": draw(SHAPES),
            "datatype": draw(st.sampled_from(TYPES)),
        }
        if draw(st.booleans()):
            one["data"] = draw(DATA)
        else:
            blob = draw(
                st.sampled_from(
                    [b"", bytes(4), bytes(16), bytes(3072), b"\xff\xff\xff\xff", b"\1\0\0\0a", b"\0\0\xc0\x7f" * 4]
                )
            )
            one["parameters"] = {"binary_data_size": draw(st.just(len(blob)) | st.sampled_from(EDGES) | LEAVES)}
            after += blob
        inputs.append(one)
    whole: object = {
        "inputs": inputs,
        "outputs": draw(st.just([]) | st.lists(ANYTHING, max_size=2)),
        "id": draw(LEAVES),
    }
    if draw(st.integers(0, 5)) == 0:
        whole = draw(ANYTHING)
    head = draw(_text(whole))
    headers = {}
    if after or draw(st.booleans()):
        said = draw(st.just(len(head)) | st.sampled_from([0, 1, len(head) - 1, len(head) + 1, 10**12]))
        headers[JSON_LENGTH] = str(said)
    headers |= dict(draw(st.lists(st.sampled_from(HEADERS), max_size=1)))
    return Case(draw(st.sampled_from(PATHS)), head + after, headers)


@st.composite
def instances(draw: st.DrawFn) -> Case:
    """A request of TensorFlow Serving's, rows or columns, with images that may be none."""
    picture = {
        "b64": draw(
            st.sampled_from(["", "=", "AAAA", "\u00e9", "A" * 5])
            | damaged().map(lambda data: base64.b64encode(data).decode())
        )
    }
    row = st.just(picture) | st.fixed_dictionaries({"x": DATA, "n": DATA, "text": DATA | st.just([picture])}) | ANYTHING
    key = draw(st.sampled_from(["instances", "inputs", "examples", "instances "]))
    whole: object = {key: draw(st.lists(row, max_size=3) | row)}
    if draw(st.integers(0, 4)) == 0:
        whole = draw(ANYTHING)
    model, verb = (
        draw(st.sampled_from(["numbers", "pictures", "pictures/versions/1", "pictures/labels/x"])),
        draw(st.sampled_from(VERBS)),
    )
    return Case(
        f"/v1/models/{model}:{verb}", draw(_text(whole)), dict(draw(st.lists(st.sampled_from(HEADERS), max_size=1)))
    )


CASES = images() | images() | forms() | tensors() | instances()
