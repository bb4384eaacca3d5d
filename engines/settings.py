"""Typed settings from YAML: a file becomes a msgspec struct, or one sentence says which key is wrong and why.

YAML here is the *core schema* of YAML 1.2, not PyYAML's default of 1.1, whose surprises have cost people days:
`no` and `off` stay text, `12:30` is not 750, `010` is ten, and `1e-3` is a number.
"""

from __future__ import annotations

import copy
import difflib
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
import yaml

from engines.errors import UsageError

T = TypeVar("T")
Step = str | int
"""One step into a document: a key or an index."""


def read_yaml(path: Path | str, type_: type[T], renamed: Mapping[str, str] | None = None) -> T:
    """Read a YAML file as a value of `type_`, usually a struct with `forbid_unknown_fields`.

    An empty file is an empty mapping, so it gives the defaults.

    Args:
        path: the file, UTF-8.
        type_: any type msgspec converts to; `pathlib.Path` is read from text.
        renamed: key paths as they were called once, with what they are called now, for the sentence about them.

    Raises:
        UsageError: the file is missing or unreadable, is not YAML, has a key twice, has a key that does not exist
            (named with the nearest one that does), lacks a key, or has a value of the wrong type or out of range. The
            sentence names file, line and key path.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise UsageError(f"{path} has more than {LARGEST_FILE >> 20} MB, and settings have not; give a YAML file.")
        text = data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise UsageError(f"There is no file {path}; give the path of a YAML file.") from None
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{path} is not UTF-8 text (byte {error.start}); save it as UTF-8, or give a YAML file."
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); give a readable YAML file.") from None
    try:
        value, node = _parse(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{path}, line {mark.line + 1}" if mark else str(path)
        raise UsageError(f"{place}: {error.problem or error.context}; mend the YAML there.") from None
    except _NOT_YAML as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise UsageError(f"{path} is not YAML: {told}.") from None
    return _convert({} if value is None else value, type_, str(path), node, renamed or {})


def _parse(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a document, and its nodes, which know their lines."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is not None:
            _check_nodes(node)
        return (None if node is None else loader.construct_document(node)), node
    finally:
        loader.dispose()


def decode(value: object, type_: type[T], where: str) -> T:
    """Convert a plain value (of dicts, lists, text, numbers) to `type_`, with the sentences of `read_yaml`.

    Args:
        value: what a command-line override or a request body holds.
        type_: any type msgspec converts to.
        where: what the sentence names in place of a file: `--set batch`.

    Raises:
        UsageError: the value does not fit.
    """
    return _convert(value, type_, where, None, {})


def parse_scalar(text: str) -> object:
    """Read the text of a command-line override as YAML would: `3` → 3, `true` → True, `[1, 2]` → a list.

    Raises:
        UsageError: the text is not YAML.
    """
    try:
        return _parse(text)[0]
    except _NOT_YAML:
        raise UsageError(f"{text!r} is not a YAML value; quote text that holds any of []{{}}:#,&*!|>%@.") from None


def schema(type_: Any) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a settings type, for editors and for `config schema`."""
    made = msgspec.json.schema(type_, schema_hook=_schema_of_custom)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` was probably meant to be, or None."""
    folded = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(word.casefold(), folded, n=1, cutoff=0.6)
    return folded[found[0]] if found else None


def _schema_of_custom(type_: type) -> dict[str, Any]:
    if type_ is Path:
        return {"type": "string", "format": "path"}
    raise NotImplementedError(f"no JSON Schema for {type_}")


def _decode_custom(type_: type, value: object) -> Path:
    if type_ is not Path:
        raise NotImplementedError(f"settings cannot hold a {type_}")
    if not isinstance(value, str):
        raise TypeError(f"wanted is a path, given is {_shown(value)}")
    return Path(value)


LARGEST_FILE = 16 << 20
MOST_VALUES = 1_000_000
DEEPEST = 50

_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("bool", "float", "int", "map", "merge", "null", "seq", "str")
)
"""Those of the core schema. PyYAML knows more of them, whose values nothing here expects."""

_NOT_YAML = (yaml.YAMLError, ValueError, KeyError, AttributeError, TypeError, RecursionError)
"""What PyYAML raises, the last four where a value does not fit a tag that was written out: `!!bool x`."""


def _check_nodes(root: yaml.Node) -> None:
    """Refuse tags that are not of the core schema, what lies too deep, and anchors that make a few lines endless.

    Raises:
        ConstructorError: there is such a thing; it knows where.
    """
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        problem = ""
        if node.tag not in _TAGS:
            problem = f"the tag {node.tag.removeprefix('tag:yaml.org,2002:')!r:.60} is none that settings have"
        elif depth > DEEPEST:
            problem = f"this lies deeper than {DEEPEST} lists and mappings in each other"
        elif (known := sizes.get(id(node))) is not None:
            if known:
                return known
            problem = "this contains itself"
        if problem:
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        sizes[id(node)] = 0
        inside = node.value if isinstance(node, yaml.SequenceNode) else ()
        if isinstance(node, yaml.MappingNode):
            inside = [part for pair in node.value for part in pair]
        sizes[id(node)] = total = 1 + sum(size(part, depth + 1) for part in inside)
        if total > MOST_VALUES:
            problem = f"these are more than {MOST_VALUES} values"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
        return total

    size(root, 0)


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema, and a key given twice is an error (PyYAML keeps the last one silently)."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's own protocol

    _depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """The next node. It is looked here how deep it lies: PyYAML would go on until Python's own stack ends."""
        self._depth += 1
        if self._depth > DEEPEST + 2:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
            problem = f"this lies deeper than {DEEPEST} lists and mappings in each other"
            raise yaml.composer.ComposerError(None, None, problem, mark)
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                problem = f"the key `{key.value}` is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _construct_int(_: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    text = str(node.value)
    return int(text, 0) if text[:2] in {"0x", "0o"} else int(text)


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
):
    # The empty scalar is looked up under the key "".
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def _convert(value: object, type_: type[T], where: str, node: yaml.Node | None, renamed: Mapping[str, str]) -> T:
    try:
        return msgspec.convert(value, type_, dec_hook=_decode_custom)
    except msgspec.ValidationError as error:
        raise UsageError(_explain(str(error), value, type_, where, node, renamed)) from None


class _Complaint(NamedTuple):
    """What msgspec says, taken apart."""

    problem: str
    steps: tuple[Step, ...]
    of_key: bool


def _take_apart(message: str) -> tuple[str, list[str | int | None], bool]:
    """Split a msgspec message into the problem, its path (None where msgspec hides a mapping's key), and if it is
    about a key."""
    found = re.fullmatch(r"(?s)(.*?)(?: - at (`key` in )?`\$(.*)`)?", message)
    assert found is not None
    steps: list[str | int | None] = []
    for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", found[3] or ""):
        steps.append(name or (None if index == "..." else int(index)))
    return found[1], steps, found[2] is not None


def _locate(message: str, root: object, type_: Any) -> _Complaint:
    """Find out which key of a mapping msgspec means by `[...]`: the one that fails with the same words alone."""
    problem, hidden, of_key = _take_apart(message)
    steps: list[Step] = []
    for depth, step in enumerate(hidden):
        if step is not None:
            steps.append(step)
            continue
        mapping = _value_at(root, steps)
        assert isinstance(mapping, dict), f"{hidden[:depth]} holds no mapping"
        for key, item in mapping.items():
            root_of_one = _replaced(root, steps, {key: item})
            try:
                msgspec.convert(root_of_one, type_, dec_hook=_decode_custom)
            except msgspec.ValidationError as error:
                if str(error) == message:
                    root = root_of_one
                    steps.append(key)
                    break
        else:
            break
    return _Complaint(problem, tuple(steps), of_key)


def _value_at(root: object, steps: Iterable[Step]) -> Any:
    value: Any = root
    for step in steps:
        value = value[step]
    return value


def _replaced(root: object, steps: list[Step], value: object) -> object:
    if not steps:
        return value
    changed = copy.deepcopy(root)
    _value_at(changed, steps[:-1])[steps[-1]] = value
    return changed


def _alternatives(type_: msgspec.inspect.Type, value: object) -> Iterator[msgspec.inspect.Type]:
    """The member types of a union that the value may mean: by its tag if it names one, else all."""
    if isinstance(type_, msgspec.inspect.Metadata):
        yield from _alternatives(type_.type, value)
    elif isinstance(type_, msgspec.inspect.UnionType):
        tagged = [
            t
            for t in type_.types
            if isinstance(t, msgspec.inspect.StructType)
            and t.tag_field is not None
            and isinstance(value, dict)
            and value.get(t.tag_field) == t.tag
        ]
        for member in tagged or type_.types:
            yield from _alternatives(member, value)
    else:
        yield type_


def _types_at(type_: msgspec.inspect.Type, root: object, steps: Iterable[Step]) -> list[msgspec.inspect.Type]:
    types, value = list(_alternatives(type_, root)), root
    for step in steps:
        inner: list[msgspec.inspect.Type] = []
        for found in types:
            inner.extend(_inner(found, step))
        value = value[step] if _has(value, step) else None  # type: ignore[index]  # checked by _has
        types = [member for t in inner for member in _alternatives(t, value)]
    return types


def _has(value: object, step: Step) -> bool:
    if isinstance(value, dict):
        return step in value
    return isinstance(value, list) and isinstance(step, int) and step < len(value)


def _inner(type_: msgspec.inspect.Type, step: Step) -> list[msgspec.inspect.Type]:
    if isinstance(type_, msgspec.inspect.StructType):
        if step == type_.tag_field:
            return [msgspec.inspect.LiteralType((type_.tag,))]
        return [field.type for field in type_.fields if field.encode_name == step]
    if isinstance(type_, msgspec.inspect.DictType):
        return [type_.value_type]
    if isinstance(type_, msgspec.inspect.TupleType):
        return [type_.item_types[step]] if isinstance(step, int) and step < len(type_.item_types) else []
    if isinstance(type_, msgspec.inspect.CollectionType):
        return [type_.item_type]
    return []


def _explain(
    message: str, root: object, type_: Any, where: str, node: yaml.Node | None, renamed: Mapping[str, str]
) -> str:
    problem, steps, of_key = _locate(message, root, type_)
    types = _types_at(msgspec.inspect.type_info(type_), root, steps)
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", problem):
        known = _keys(types)
        at = _place(where, node, (*steps, found[1]))
        path = _path((*steps, found[1]))
        if path in renamed:
            return f"{at}: `{path}` is called `{renamed[path]}` now."
        return f"{at}: `{path}` is not a known key; {_advice(found[1], known, 'keys')}."
    if found := re.fullmatch(r"Object missing required field `(.*)`", problem):
        inside = f"`{_path(steps)}`" if steps else "the settings"
        return f"{_place(where, node, steps)}: {inside} must have the key `{found[1]}`; add it."
    at, name = _place(where, node, steps), f"`{_path(steps)}`" if steps else "the whole"
    if of_key:
        keys = [str(v) for t in types if isinstance(t, msgspec.inspect.DictType) for v in _values(t.key_type)]
        given = next((k for k in _value_at(root, steps) if not isinstance(k, str) or k not in keys), "")
        problem = _advice(str(given), keys, "keys") if keys else "write it in quotes to make it text"
        return f"{at}: `{_path((*steps, str(given)))}` is not a key that can stand there; {problem}."
    value = _value_at(root, steps)
    if problem.startswith(("Invalid enum value", "Invalid value")):
        known = [str(v) for t in types for v in _values(t)]
        return f"{at}: {name} is {_shown(value)}; {_advice(str(value), known, 'values')}."
    if problem.startswith("Expected"):
        wanted = " or ".join(dict.fromkeys(_wanted(t) for t in types)) or problem.removeprefix("Expected ")
        return f"{at}: {name} is {_shown(value)}; wanted is {wanted}."
    return f"{at}: {name + ': ' if steps else ''}{problem.removesuffix('.')}."


def _keys(types: list[msgspec.inspect.Type]) -> list[str]:
    keys: list[str] = []
    for found in types:
        if isinstance(found, msgspec.inspect.StructType):
            keys.extend(field.encode_name for field in found.fields)
            if found.tag_field is not None:
                keys.append(found.tag_field)
    return list(dict.fromkeys(keys))


def _values(type_: msgspec.inspect.Type) -> list[object]:
    if isinstance(type_, msgspec.inspect.LiteralType):
        return list(type_.values)
    if isinstance(type_, msgspec.inspect.EnumType):
        return [member.value for member in type_.cls]
    if isinstance(type_, msgspec.inspect.StructType) and type_.tag is not None:
        return [type_.tag]
    return []


def _advice(given: str, known: list[str], noun: str) -> str:
    close = nearest(given, known)
    listed = f"known {noun} are {', '.join(known)}"
    return listed if close is None else f"the nearest is `{close}` ({listed})"


def _path(steps: Iterable[Step]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return text.removeprefix(".")


def _place(where: str, node: yaml.Node | None, steps: Iterable[Step]) -> str:
    """The place with its line, as far as the document has the steps."""
    if node is None:
        return where
    line = node.start_mark.line
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            entry = next(((key, value) for key, value in node.value if key.value == str(step)), None)
            if entry is None:
                break
            line, node = entry[0].start_mark.line, entry[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return f"{where}, line {line + 1}"


def _shown(value: object) -> str:
    """A value of YAML as the person wrote it, short."""
    if value is None:
        return "empty"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else text[:57] + "…"


def _wanted(type_: msgspec.inspect.Type) -> str:
    """A type in words."""
    match type_:
        case msgspec.inspect.BoolType():
            return "true or false"
        case msgspec.inspect.IntType():
            return "a whole number" + _bounds(type_)
        case msgspec.inspect.FloatType():
            return "a number" + _bounds(type_)
        case msgspec.inspect.StrType():
            return "text" + (f" matching {type_.pattern}" if type_.pattern else "")
        case msgspec.inspect.NoneType():
            return "nothing"
        case msgspec.inspect.TupleType():
            return f"a list of {len(type_.item_types)}"
        case msgspec.inspect.CollectionType():
            return "a list" + _lengths(type_.min_length, type_.max_length)
        case msgspec.inspect.DictType() | msgspec.inspect.StructType():
            return "a mapping of keys to values"
        case msgspec.inspect.LiteralType() | msgspec.inspect.EnumType():
            return "one of " + ", ".join(str(v) for v in _values(type_))
        case msgspec.inspect.CustomType() if type_.cls is Path:
            return "a path"
        case _:
            return type(type_).__name__.removesuffix("Type").lower()


def _bounds(type_: msgspec.inspect.IntType | msgspec.inspect.FloatType) -> str:
    words = [
        f"{word} {bound}"
        for word, bound in (
            ("at least", type_.ge),
            ("greater than", type_.gt),
            ("at most", type_.le),
            ("less than", type_.lt),
            ("a multiple of", type_.multiple_of),
        )
        if bound is not None
    ]
    return ", " + " and ".join(words) if words else ""


def _lengths(least: int | None, most: int | None) -> str:
    words = [f"at least {least}"] if least else []
    if most is not None:
        words.append(f"at most {most}")
    return " of " + " and ".join(words) if words else ""
