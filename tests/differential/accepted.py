"""Where Glimpse answers otherwise on purpose: each difference with its reason, as narrow as it can be said.

An entry that meets nothing in a whole run is reported, so the list never holds more than there is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from tests.differential.comparison import Difference
from tests.differential.steps import Step


@dataclass(frozen=True)
class Accepted:
    """A reason, and what it covers: the request as `METHOD path`, the place of the difference, and what is said there.

    `request`, `where` have to match as a whole; `glance` and `glimpse` the beginning of the two values as text.
    """

    reason: str
    request: str
    where: str
    glance: str = ""
    glimpse: str = ""
    when: Callable[[Step], bool] = lambda step: True

    def covers(self, step: Step, difference: Difference) -> bool:
        """Whether this difference is the one that is meant."""
        return (
            re.fullmatch(self.request, f"{step.method} {step.path}", re.DOTALL) is not None
            and re.fullmatch(self.where, difference.where) is not None
            and re.match(self.glance, str(difference.glance)) is not None
            and re.match(self.glimpse, str(difference.glimpse)) is not None
            and self.when(step)
        )


NUL = "The character NUL is refused: PostgreSQL cannot keep it."
LATIN = "What is not ASCII in a path is UTF-8, as in a query; Glance reads a tag in a path as Latin-1."

ACCEPTED: tuple[Accepted, ...] = (
    Accepted(
        "The descriptions in the schemas are our own words.",
        "GET /v2/schemas/.*", r"body\..*description",
    ),
    Accepted(
        "Every answer has a request id, also those from before the caller is known.",
        ".*", "header x-openstack-request-id", r"\(mis", "req-",
    ),
    Accepted(
        "Glance shows stores of its own, once a worker has answered a first time; nobody can upload to them.",
        "POST /v2/images", "header openstack-image-store-ids", r".*,os_glance_staging_store,os_glance_tasks_store$",
    ),
    Accepted(
        "Where there is no cache, Glance fails to look for an image there.",
        "DELETE /v2/cache/.*", "status", "500 ", "404 ",
    ),
    Accepted(
        NUL, "(POST|PATCH) /v2/images.*", "status", "20[01] ", "400 ", lambda step: "\\x00" in repr(step.json),
    ),
    Accepted(NUL, "(PUT|DELETE) /v2/images/.*/tags/%00", "status", "204 ", "40[04] "),
    Accepted(NUL, "GET /v2/images/.*", "body.*", r".*(\x00|\\x00)"),
    Accepted(
        LATIN, "(PUT|DELETE) /v2/images/.*/tags/%(C3|E6|F0).*", "status", "(204|40[04]) ", "(204|40[04]) ",
    ),
    Accepted(LATIN, "GET /v2/images/.*", r"body.tags(\[\d\])?", ".*[Ãæð]|\\['kept'\\]", ""),
    Accepted(LATIN, r"GET /v2/images\?.*tag=%(C3|E6|F0).*", "body.(images|next)", r"(\[\]|\(missing)", ""),
    Accepted(
        "Glance fails to take one of two tags away that differ only by case.",
        "(DELETE|PATCH) /v2/images/.*", "status", "500 ", "20[04] ", lambda step: "/tags" in f"{step.path} {step.json}",
    ),
    Accepted(
        "Dots are tags like others.",
        r"(PUT|DELETE) /v2/images/.*/tags/\.\.?", "status", "404 ", "204 ",
    ),
    Accepted(
        "A member is the id of a project: text; Glance takes anything.",
        "POST /v2/images/.*/members", "status", "(200|500) ", "400 ",
        lambda step: not isinstance(step.json["member"], str) or len(step.json["member"]) > 255,
    ),
    Accepted(
        "1.0 is an integer for JSON Schema and for us; Glance repeats it as it was sent, and shows 1 later.",
        "(POST|PATCH) /v2/images.*", r"body\.min_(ram|disk)", r"-?\d+\.0$", r"\d+$",
    ),
    Accepted(
        "os_hash_algo and os_hash_value are read-only; when an image is created, Glance takes them and shows null.",
        "POST /v2/images", "status", "(201|400) ", "403 ",
        lambda step: isinstance(step.json, dict) and bool({"os_hash_algo", "os_hash_value"} & step.json.keys()),
    ),
    Accepted(
        "Glance fails on a body that is a list.",
        "POST /v2/images", "status", "500 ", "400 ", lambda step: (step.body or b"").startswith(b"["),
    ),
    Accepted(
        "Glance fails on half a character.",
        "(POST|PATCH) /v2/images.*", "status", "500 ", "400 .*surrogate",
    ),
    Accepted(
        "Glance fails on names of properties that are one name for MySQL.",
        "(POST|PATCH) /v2/images.*", "status", "500 ", "400 .*differ by more than case|409 .*differ only by case",
    ),
    Accepted(
        "Of two mistakes in one body, each names another one.",
        "POST /v2/images", "status", "403 .*reserved", "400 .*min_ram",
        lambda step: step.json == {"name": "both wrong", "min_ram": -1, "deleted": "x"},
    ),
    Accepted(
        "Ids are found as they were written; MySQL finds them in any case, PostgreSQL does not.",
        "GET /v2/images/ABCDEF00-0000-4000-8000-00000000000A", "status", "200 ", "404 ",
    ),
    Accepted(
        "Glance breaks the connection off at what is no UTF-8 in a path or a query.",
        ".*%FF.*", "status", "0 ", "40[04] ",
    ),
    Accepted(
        "Glance fails on a pointer that is no text.",
        "PATCH /v2/images/.*", "status", "500 ", "400 .*(does not start with|named path)",
    ),
    Accepted(
        "A pointer names something: Glance makes a property without a name, and takes //x for /x.",
        "PATCH /v2/images/.*", "status", "(200|409|500) ", "400 .*(empty|blank) token",
    ),
    Accepted(
        "Values and names that cannot be stored are refused before anything is looked up.",
        "PATCH /v2/images/.*", "status", "40[349] ", "400 .*(not supported|at most 255 characters|must be between)",
    ),
    Accepted(
        "Glance fails on names of properties that are longer than its column.",
        "(PATCH|POST) /v2/images.*", "status", "500 ", "400 .*at most 255 characters",
    ),
    Accepted(
        "The property stores is read-only; Glance stores what it is given, and shows it until there is data.",
        "PATCH /v2/images/.*", "status", "(200|400|409) ", "403 .*'stores' is read-only",
    ),
    Accepted(
        "A property may have any name that is not one of the image's own; Glance meets attributes of its own objects.",
        "PATCH /v2/images/.*", "(status|body.member)", "", "",
        lambda step: re.search("'/(image_id|member|extra_properties)'", str(step.json)) is not None,
    ),
    Accepted(
        "Only an admin gives an image to another project, by whatever operation.",
        "PATCH /v2/images/.*", "status", "200 ", "403 ", lambda step: "/owner" in str(step.json),
    ),
    Accepted(
        "An empty owner stays empty; Glance keeps null, which would open the image to everybody.",
        "GET /v2/images/.*", "body.owner", "None", "$",
    ),
    Accepted(
        "Who may not see an image does not learn that it is there.",
        r"PATCH /v2/images/\$\{a\}", "status", "403 .*(publicize|communitize)_image", "404 ",
        lambda step: step.user == "service",
    ),
    Accepted(
        "An empty visibility is none; Glance finds no image that has it.",
        r"GET /v2/images\?visibility=", "status", "(200|403) ", "400 .*visibility",
    ),
    Accepted(
        "Links keep parameters that were given several times; Glance keeps the last.",
        r"GET /v2/images\?.*", "body.(first|next)", "", "",
        lambda step: re.search(r"[?&](\w+)=.*&\1=", step.path) is not None,
    ),
    Accepted(
        "Of limits, markers, orders, visibilities the last counts; Glance looks for properties of these names, too.",
        r"GET /v2/images\?(visibility|limit|marker|sort)=[^&]*&\1=.*", "body.images", r"\[\]$", "",
    ),
    Accepted(
        "A quote inside quotes is found.",
        r"GET /v2/images\?name=in:%22say%20%5C%22x.*", "body.images", "", ".*say \"x\", y",
    ),
    Accepted(
        "Only the digits 0 to 9 make a number.",
        r"GET /v2/images\?limit=(%D9%A1|1_0)", "status", "200 ", "400 ",
    ),
    Accepted(
        "Other methods than those of the API are not known to the service (501), or to its HTTP parser (400).",
        "(TRACE|FOO) /v2/images", "status", "40[15] ", "(501|400) ",
    ),
    Accepted(
        "/v2 and /v2/ show the versions; Glance redirects the one to the other, which is not there.",
        r"GET /v2(\.17)?/?", "status", "(302|401|404) ", "200 ",
    ),
    Accepted(
        "No image can have such characters, so to ask for them is a mistake; Glance finds nothing.",
        r"GET /v2/images\?.*(%F0%9F%92%BF|%00).*", "status", "200 ", "400 .*not supported",
    ),
    Accepted(
        "More of ISO 8601 is understood: weeks, and an offset whose plus sign was not encoded.",
        r"GET /v2/images\?(created|updated)_at=gt:(2025-W10|2026-01-01T01:05:00\+01:00)", "status", "400 ", "200 ",
    ),
    Accepted(
        "A number is wanted for a column of numbers; Glance leaves it to the database, and MySQL takes text for 0.",
        r"GET /v2/images\?(size|virtual_size|min_ram|min_disk)=.*", "status", "200 ", "400 .*must be an integer",
    ),
    Accepted(
        "tags and locations are no filters, and only numbers have bounds: these are names of properties. Glance takes "
        "any attribute of its tables, and fails on some.",
        r"GET /v2/images\?(tags|locations|changes-since|(created_at|os_hidden|id|protected|name|min_ram_min)_m..)=.*",
        "(status|body.images)", "", "",
    ),
    Accepted(
        "A Location is a URI, with escapes where a name has more than letters.",
        "POST /v2/metadefs/namespaces", "header location", "", ".*(%|\\.\\.)",
    ),
    Accepted(LATIN, ".* /v2/metadefs/.*%(C3|E6|F0).*", "status", "(404|400|20[014]) ", "(404|400|20[014]) "),
    Accepted(LATIN, "POST /v2/metadefs/namespaces", "status", "0 ", "201 "),
    Accepted(
        "What is named in a path has a name, and a namespace's has no slash: Glance makes what nobody can reach.",
        "(POST|PUT) /v2/metadefs/.*", "status", "20[01] ", "400 .*name of 1 to 80",
    ),
    Accepted(
        NUL, "(POST|PUT) /v2/metadefs/.*", "status", "20[01] ", "400 ", lambda step: "\\x00" in repr(step.json),
    ),
    Accepted(
        "An empty owner is none, so it is the caller's project.",
        "(POST|PUT|GET) /v2/metadefs/namespaces.*", "body.owner", "$", "",
    ),
    Accepted(
        "Glance fails where a part of a namespace is at fault, a name is taken, or a parameter makes no sense.",
        "(GET|POST|PUT|DELETE) /v2/metadefs/.*", "status", "500 ", "40[0349] ",
    ),
    Accepted(
        "A namespace is made with all of its parts or not at all; Glance leaves it behind without them.",
        "GET /v2/metadefs/namespaces/n", "status", "200 ", "404 ",
    ),
    Accepted(
        "Characters from U+10000 on are refused wherever text is kept, also inside an object's properties.",
        "POST /v2/metadefs/namespaces/n/objects", "status", "201 ", "400 .*not supported",
    ),
    Accepted(
        "A body is held against its schema before the namespace is looked up.",
        "POST /v2/metadefs/namespaces/n/tags", "status", "404 ", "400 .*schema", lambda step: step.user == "member",
    ),
    Accepted(
        "What cannot be a name is refused before anything is looked up.",
        "PUT /v2/metadefs/namespaces/n/tags/x", "status", "404 ", "400 ",
    ),
    Accepted(LATIN, "(POST|GET) /v2/metadefs/namespaces/n/tags.*", r"body.(name|tags.*)", ".*[Ãæð]", ""),
    Accepted(
        "Parameters that mean nothing are passed over.",
        r"GET /v2/metadefs/namespaces/n(\?(x=y|limit=1)|/tags\?limit=9{20})", "status", "500 ", "200 ",
    ),
    Accepted(
        "An empty visibility is none; Glance finds no namespace that has it.",
        r"GET /v2/metadefs/namespaces\?visibility=", "status", "200 ", "400 ",
    ),
    Accepted(
        "Of several parameters of one name the last counts, and links keep all of them.",
        r"GET /v2/metadefs/namespaces\?(\w+)=.*&\1=.*", "body.(first|next|namespaces)", "", "",
    ),
    Accepted(
        "Locations are answered as they are kept: without what they are not made of, by the weight of their stores.",
        "PATCH /v2/images/.*", r"body.(locations\[\d\]\.(more|validation_data|url)|direct_url)", "", "",
        lambda step: "/locations" in str(step.json),
    ),
    Accepted(
        "A position behind the end is none.",
        "PATCH /v2/images/.*", "status", "200 ", "400 .*position",
        lambda step: "/locations/99999999999" in str(step.json),
    ),
    Accepted(
        "The metadata of locations hold objects, lists and text, by whatever operation; Glance fails to add others.",
        "PATCH /v2/images/.*", "status", "(200|500) ", "400 .*metadata",
    ),
    Accepted(
        "A wrong method is told apart from a wrong path everywhere; Glance has no 405 for these two.",
        "(HEAD|POST|PUT|PATCH|DELETE) /v2/(images/[^/]*/tasks|info/usage)", "status", "404 ", "405 ",
    ),
    Accepted(
        "Allow names every method that there is; Glance leaves GET out.",
        ".* /v2/images/[^/]*/locations", "header allow", r"\['POST'\]", r"\['GET', 'POST'\]",
    ),
    Accepted(
        "A path with an empty part is another path; the server in front of Glance takes it out.",
        "GET /v2//images", "status", "200 ", "404 ",
    ),
    Accepted(
        "Media types are compared without regard to case (RFC 9110, 8.3.1).",
        "(PUT|PATCH) /v2/images/.*", "status", "415 .*APPLICATION/", "(200|204|409) ",
    ),
    Accepted(
        "A size has to be a number that a size can be.",
        "PUT /v2/images/.*/file", "status", "409 ", "400 ",
        lambda step: step.headers.get("x-openstack-image-size") == "-1",
    ),
    Accepted(
        "Nobody but the service itself puts data into its own stores.",
        "PUT /v2/images/.*/file", "status", "204 ", "400 ",
        lambda step: step.headers.get("x-image-meta-store", "").startswith("os_glance_"),
    ),
    Accepted(
        "The answer to a range that cannot be had tells the size (RFC 9110, 15.5.17).",
        "GET /v2/images/.*/file", "header content-range", r"\(missing\)", r"bytes \*/10",
    ),
    Accepted(
        "The last zero bytes are no range that can be had (RFC 9110, 14.1.2).",
        "GET /v2/images/.*/file", "status", "206 ", "416 ", lambda step: step.headers.get("Range") == "bytes=-0",
    ),
    Accepted(
        "Glance breaks the connection off at a Content-Range that names no range.",
        "GET /v2/images/.*/file", "status", "0 ", "416 ",
        lambda step: step.headers.get("Content-Range") == "bytes */10",
    ),
    Accepted(
        "A tag that is given twice counts once against the limit.",
        "PATCH /v2/images/.*", "status", "413 .*tags", "200 ",
    ),
    Accepted(
        "MariaDB takes OS_GLANCE_X for os_glance_x: such names are the service's own in every spelling.",
        "(POST|PATCH) /v2/images.*", "status", "(200|201|400|409) ", "403 .*reserved",
        lambda step: "OS_GLANCE_" in f"{step.json}{step.body!r}",
    ),
    Accepted(
        "A task that can come to nothing fails at once, and not a moment later.",
        "POST /v2/tasks", r"body\.(status|message|expires_at)",
    ),
)  # fmt: skip
