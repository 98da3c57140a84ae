"""Untrusted text reaches a widget or a stream only through `safe`: read off the source, so that nobody can forget it.

Every expression that is drawn is followed back to where it comes from. It is trusted where that is a literal, a
number, something that `safe` made, or a field whose type says so (`SafeText`); a parameter of type `str` that is
drawn makes every call of its function a place that draws.
"""

from __future__ import annotations

import ast
import dataclasses
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest

import mcpwatch
from mcpwatch import snapshot
from mcpwatch.console.themes import ROLES
from mcpwatch.response import exception, plan

PACKAGE: Final = Path(mcpwatch.__file__).parent
ROLE_STARTS: Final = ("tier-", "severity-", "chip-")
ROLE_NAMES: Final = frozenset({"role", "edge", "strong", "bad", "fill"})
TRUSTED_TYPES: Final = (
    "SafeText", "int", "float", "bool", "Line", "Span", "Severity", "Tier", "Size", "Action", "Literal", "ForceState",
    "LockoutState", "Drawn", "Callable", "None", "Column",
)  # fmt: skip
"""Beginnings of annotations whose values hold no foreign text; `tuple[SafeText, …]` and the like are unwrapped."""
MAKES_SAFE: Final = frozenset({
    "safe", "safe_id", "clock_time", "format_duration", "iso", "len", "round", "sum", "int", "float", "max", "min",
    "bool", "ord", "key_sign", "cell",
})  # fmt: skip
"""Functions whose results are safe whatever they are given. The cells of a column draw by themselves."""
OWN_WORDS: Final = frozenset({"label", "help", "header", "group", "width", "height", "size", "align"})
"""Attributes that hold words of the program, or numbers."""
PASSES_ON: Final = frozenset({
    "fit", "fit_line", "str", "join", "upper", "lower", "strip", "rstrip", "lstrip", "removeprefix", "removesuffix",
    "replace", "capitalize", "ljust", "rjust", "partition", "rpartition", "split", "splitlines", "chop_cells",
    "set_cell_size", "enumerate", "zip", "sorted", "reversed", "tuple", "list", "dict", "islice", "items", "values",
    "get", "next", "iter", "fromkeys", "wrap", "sentence", "pop", "Content",
})  # fmt: skip
"""Functions whose results are as safe as what they are given."""
SINKS: Final = {"Segment": (0,), "Content": (0,), "Text": (0,), "DiscoveryHit": (0, 2, 3), "Hit": (1, 3, 4)}
"""Calls that draw, and which of their arguments."""
TITLES: Final = frozenset({"title", "sub_title", "border_title", "border_subtitle", "tooltip"})
FORBIDDEN: Final = frozenset({
    "from_markup", "render_markup", "notify", "Static", "Label", "Markdown", "RichLog", "set_terminal_title", "print",
    "print_exc", "format_exc",
})  # fmt: skip
"""What reads markup, or takes text past the lines that are drawn."""


def _trusted_type(annotation: str) -> bool:
    for wrapper in ("tuple[", "list[", "Sequence[", "Iterable[", "dict[", "Final[", "frozenset["):
        if annotation.startswith(wrapper):
            inner = annotation[len(wrapper) : -1].replace(", ...", "")
            return all(_trusted_type(part.strip(" []")) for part in inner.replace("tuple[", "").split(","))
    # a row is never drawn itself: its fields are, each by its own type
    return annotation.startswith(TRUSTED_TYPES) or annotation.endswith(("Row", "Detail"))


def _fields() -> dict[str, bool]:
    """Names of fields of what the console is given, and whether every field of that name can be trusted."""
    found: dict[str, bool] = {}
    own = [kind for kind in vars(snapshot).values() if getattr(kind, "__module__", "") == snapshot.__name__]
    for kind in (*own, plan.Plan, plan.Target, exception.Choice, exception.Effect):
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            for field in dataclasses.fields(kind):
                found[field.name] = found.get(field.name, True) and _trusted_type(str(field.type))
    return found


FIELDS: Final = _fields()


Function = ast.FunctionDef | ast.AsyncFunctionDef
Scope = tuple[Function, ...]
"""The functions that an expression stands in, the outermost first."""


class Source:
    """The functions of some modules, and what each is asked to draw."""

    def __init__(self, texts: Mapping[str, str]) -> None:
        self.trees = {name: ast.parse(text) for name, text in texts.items()}
        self.functions: dict[str, list[Function]] = defaultdict(list)
        self.kept: dict[str, list[tuple[str, Scope, ast.expr]]] = defaultdict(list)
        """What is assigned to attributes of that name, anywhere."""
        self.drawn: dict[str, set[str]] = defaultdict(set)
        """Parameters of functions that are drawn."""
        self.problems: set[str] = set()
        for name, tree in self.trees.items():
            self._collect(name, (), tree)

    def _collect(self, module: str, scope: Scope, node: ast.AST) -> None:
        if isinstance(node, Function):
            self.functions[node.name].append(node)
            scope = (*scope, node)
        for target, value in _assigned(node):
            if isinstance(target, ast.Attribute):
                self.kept[target.attr].append((module, scope, value))
        for child in ast.iter_child_nodes(node):
            self._collect(module, scope, child)

    def check(self) -> list[str]:
        """What draws text that is not known to be safe, as `module:line: expression`."""
        while True:
            before = sum(map(len, self.drawn.values()))
            self.problems.clear()
            for name, tree in self.trees.items():
                Reader(self, name).visit(tree)
            if sum(map(len, self.drawn.values())) == before:
                return sorted(self.problems)


def _assigned(node: ast.AST) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(node, ast.Assign):
        for target in node.targets:
            yield from _pairs(target, node.value)
    elif isinstance(node, ast.AnnAssign) and _trusted_type(ast.unparse(node.annotation)):
        yield node.target, ast.Constant(0)  # mypy sees to it
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr) and node.value is not None:
        yield node.target, node.value
    elif isinstance(node, ast.For | ast.AsyncFor | ast.comprehension):
        yield from _pairs(node.target, node.iter)


def _pairs(target: ast.expr, value: ast.expr) -> Iterator[tuple[ast.expr, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        for left, right in zip(target.elts, value.elts, strict=True):
            yield from _pairs(left, right)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Call) and _called(value) == "enumerate":
        yield from _pairs(target.elts[1], value.args[0])
        yield target.elts[0], ast.Constant(0)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Call) and _called(value) == "zip":
        for left, right in zip(target.elts, value.args, strict=False):
            yield from _pairs(left, right)
    elif isinstance(target, ast.Tuple):
        for left in target.elts:
            yield from _pairs(left.value if isinstance(left, ast.Starred) else left, value)
    else:
        yield target, value


def _parameters(function: Function) -> list[ast.arg]:
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _is_role(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in ROLES
    if isinstance(node, ast.IfExp):
        return _is_role(node.body) or _is_role(node.orelse)
    if isinstance(node, ast.JoinedStr):
        first = node.values[0] if node.values else None
        return isinstance(first, ast.Constant) and str(first.value).startswith(ROLE_STARTS)
    if isinstance(node, ast.Call):
        return any(_is_role(argument) for argument in node.args)
    return isinstance(node, ast.Name) and node.id in ROLE_NAMES


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


class Reader(ast.NodeVisitor):
    """Goes through one module."""

    def __init__(self, source: Source, module: str) -> None:
        self.source = source
        self.module = module
        self.inside: Scope = ()
        self._asking: set[tuple[int, ...]] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._enter(node)

    def _enter(self, node: Function) -> None:
        before, self.inside = self.inside, (*self.inside, node)
        self.generic_visit(node)
        self.inside = before

    def visit_Tuple(self, node: ast.Tuple) -> None:
        if isinstance(node.ctx, ast.Load) and len(node.elts) == 2 and _is_role(node.elts[1]):
            self._draw(node.elts[0])
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        name = _called(node)
        if name in FORBIDDEN:
            self._say(node, f"{name} is not for drawing")
        for at in SINKS.get(name, ()):
            if at < len(node.args):
                self._draw(node.args[at])
        if name == "Content" or any(word.arg == "markup" for word in node.keywords):
            self._markup(node)
        for function in self.source.functions.get(name, ()):
            self._draw_arguments(node, function)
        self.generic_visit(node)

    def _markup(self, node: ast.Call) -> None:
        for word in node.keywords:
            if word.arg == "markup" and not (
                isinstance(word.value, ast.Constant) and word.value.value is False
            ):
                self._say(node, "markup")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module == "rich.markup":
            self._say(node, "rich.markup")

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Attribute) and target.attr in TITLES:
                self._draw(node.value)
        self.generic_visit(node)

    def _draw_arguments(self, call: ast.Call, function: Function) -> None:
        drawn = self.source.drawn[function.name]
        names = [argument.arg for argument in _parameters(function)]
        own = names[1:] if names[:1] in (["self"], ["cls"]) else names
        given = [*zip(own, call.args, strict=False), *((word.arg, word.value) for word in call.keywords)]
        for name, value in given:
            if name in drawn:
                self._draw(value)

    def _say(self, node: ast.AST, what: str) -> None:
        self.source.problems.add(f"{self.module}:{getattr(node, 'lineno', 0)}: {what}")

    def _draw(self, node: ast.expr) -> None:
        if not self.trusted(node):
            self._say(node, ast.unparse(node))

    def trusted(self, node: ast.expr | None) -> bool:
        """Whether an expression holds no foreign text."""
        if node is None or isinstance(node, ast.Constant | ast.Compare | ast.UnaryOp | ast.Lambda):
            return True
        if isinstance(node, ast.FormattedValue):
            return _is_number(node.format_spec) or self.trusted(node.value)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub | ast.Div | ast.FloorDiv):
            return True  # a number
        if isinstance(node, ast.Attribute):
            return self._trusted_attribute(node)
        if isinstance(node, ast.Name):
            return self._trusted_name(node.id)
        if isinstance(node, ast.Call):
            return self._trusted_call(node)
        if isinstance(node, ast.Dict):
            return all(self.trusted(value) for value in node.values)
        parts: dict[type[ast.expr], tuple[str, ...]] = {
            ast.JoinedStr: ("values",), ast.IfExp: ("body", "orelse"), ast.BoolOp: ("values",),
            ast.BinOp: ("left", "right"), ast.Subscript: ("value",), ast.Starred: ("value",), ast.Tuple: ("elts",),
            ast.List: ("elts",), ast.Set: ("elts",), ast.GeneratorExp: ("elt",), ast.ListComp: ("elt",),
            ast.SetComp: ("elt",), ast.NamedExpr: ("value",), ast.DictComp: ("value",), ast.Await: ("value",),
        }  # fmt: skip
        if type(node) not in parts:
            return False
        found = (getattr(node, name) for name in parts[type(node)])
        return all(
            self.trusted(part) for each in found for part in (each if isinstance(each, list) else [each])
        )

    def _trusted_attribute(self, node: ast.Attribute) -> bool:
        if node.attr == "name" and ast.unparse(node.value).endswith("path"):
            return False
        if node.attr in FIELDS:
            return FIELDS[node.attr]
        if node.attr.isupper():
            return True
        if node.attr in OWN_WORDS or (node.attr == "value" and ast.unparse(node.value).endswith("tier")):
            return True
        return self._once(node.attr, self.source.kept.get(node.attr, []))

    def _trusted_name(self, name: str) -> bool:
        if name.isupper() or name.strip("_").isupper():
            return True
        for function in reversed(self.inside):
            for argument in _parameters(function):
                if argument.arg == name:
                    return self._trusted_parameter(function, argument)
        for depth in range(len(self.inside), -1, -1):
            scope = self.inside[:depth]
            whole = ast.walk(scope[-1]) if scope else iter(self.source.trees[self.module].body)
            found = [
                (self.module, self.inside if scope else (), value)
                for inner in whole
                for target, value in _assigned(inner)
                if isinstance(target, ast.Name) and target.id == name
            ]
            if found:
                return self._once(name, found)
        return False

    def _trusted_parameter(self, function: Function, argument: ast.arg) -> bool:
        annotation = ast.unparse(argument.annotation) if argument.annotation is not None else ""
        if _trusted_type(annotation):
            return True
        if "str" in annotation and "Callable" not in annotation:
            # whoever calls it draws
            self.source.drawn[function.name].add(argument.arg)
            return True
        return False

    def _once(self, name: str, found: Sequence[tuple[str, Scope, ast.expr]]) -> bool:
        """Whether all values of a name can be trusted; one that is made of itself, as `text = text + 'x'`, can."""
        asked = tuple(id(value) for _, _, value in found)
        if asked in self._asking:
            return True
        before = self.module, self.inside
        self._asking.add(asked)
        try:
            for self.module, self.inside, value in found:
                if not self.trusted(value):
                    return False
            return bool(found)
        finally:
            self._asking.discard(asked)
            self.module, self.inside = before

    def _trusted_call(self, node: ast.Call) -> bool:
        name = _called(node)
        if name in MAKES_SAFE:
            return True
        values = [*node.args, *(word.value for word in node.keywords)]
        receiver = node.func.value if isinstance(node.func, ast.Attribute) else None
        if isinstance(receiver, ast.Name) and receiver.id == "dict":
            receiver = None
        own = self.source.functions.get(name)
        if own:
            returned = {ast.unparse(each.returns) if each.returns is not None else "" for each in own}
            # what it draws of its arguments is looked at where it is called
            return all(map(_trusted_type, returned)) or all(map(self.trusted, values))
        if name in PASSES_ON:
            return all(map(self.trusted, [*values, *([receiver] if receiver is not None else [])]))
        return False


def _is_number(spec: ast.expr | None) -> bool:
    text = ast.unparse(spec).strip("f'\"") if spec is not None else ""
    return text != "" and text[-1] in ",df%gxnb"


def sources(room: str) -> dict[str, str]:
    """The modules of a room."""
    folder = PACKAGE / room
    return {str(path.relative_to(PACKAGE)): path.read_text() for path in sorted(folder.rglob("*.py"))}


def test_no_foreign_text_reaches_a_widget_of_the_console() -> None:
    assert Source(sources("console")).check() == []


FORGOTTEN: Final = (
    'def f(view: Pane, row: AlertRow) -> None:\n    view.show([((row.title, "bold"),)])',
    'def f(view: Pane, name: str) -> Line:\n    return ((f"about {name}", "dim"),)\ndef g(x: Target) -> Line:\n'
    "    return f(0, x.id)",
    'def f(view: Pane, error: OSError) -> None:\n    view.show([((f"not read: {error}", "warn"),)])',
    "def f(self, path: Path) -> None:\n    self.border_title = path.name",
    'def f(self, t: Target) -> None:\n    words = t.id + "!"\n    return ((words, "warn"),)',
    "def f(x: Target) -> None:\n    Content(x.id)",
    'def f(x: SafeText) -> None:\n    Content.from_markup("[b]x")',
    "def f(self) -> None:\n    self.notify('x')",
    "from rich.markup import escape",
    "def f(x: SafeText) -> None:\n    print(x)",
    'def f(rows: Sequence[Target]) -> Line:\n    return tuple((row.id, "text") for row in rows)',
    'def f(x: Target) -> Line:\n    return ((fit(x.id, 8), "text"),)',
)


@pytest.mark.parametrize("text", FORGOTTEN)
def test_what_somebody_could_forget_is_found(text: str) -> None:
    """The reader itself can tell."""
    assert Source({"console/new.py": text}).check() != []


@pytest.mark.parametrize("text", [
    'def f(row: AlertRow) -> Line:\n    return ((row.subject, "bold"), (f"x{row.count:,}", "dim"))',
    'def f(t: Target) -> Line:\n    words = safe(t.id, 40) + "!"\n    return ((words, "warn"),)',
    'def f(rows: Sequence[Target]) -> Line:\n    return tuple((safe(row.id), "text") for row in rows)',
])  # fmt: skip
def test_what_is_safe_is_left_alone(text: str) -> None:
    assert Source({"console/new.py": text}).check() == []
