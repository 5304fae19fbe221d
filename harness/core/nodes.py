"""Questions about nodes of a syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Sequence

_DROPPED = {"annotation", "returns", "type_params", "type_comment", "kind", "ctx", "simple"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
SCOPES = (*FUNCTIONS, ast.Lambda, *_COMPREHENSIONS)


def nodes_of_scope(body: Iterable[ast.AST]) -> Iterator[ast.AST]:
    """Yield the nodes of a scope without those of the scopes within."""
    for node in body:
        yield node
        if not isinstance(node, (*SCOPES, ast.ClassDef)):
            yield from nodes_of_scope(ast.iter_child_nodes(node))


def dotted(node: ast.AST) -> list[str]:
    """Return the parts of ``a.b.c``; empty where it does not start with a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.insert(0, node.attr)
        node = node.value
    return [node.id, *parts] if isinstance(node, ast.Name) else []


def dotted_name(node: ast.AST) -> str:
    """Return the dotted name of a node; empty where it has none."""
    return ".".join(dotted(node))


def named_types(annotation: ast.AST | None) -> Iterator[list[str]]:
    """Yield the dotted names that stand alone or in a union in an annotation."""
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        annotation = ast.parse(annotation.value, mode="eval").body
    if isinstance(annotation, ast.BinOp):
        yield from named_types(annotation.left)
        yield from named_types(annotation.right)
    elif isinstance(annotation, ast.Subscript):
        yield from named_types(annotation.value)
    elif annotation is not None and (chain := dotted(annotation)):
        yield chain


def joined(target: str, rest: Sequence[str]) -> str:
    """Return ``module:name.attribute`` from ``module:name`` and attributes."""
    module, _, name = target.partition(":")
    return f"{module}:{'.'.join(filter(None, (name, *rest)))}"


def assigned(statement: ast.stmt) -> list[str]:
    """Return the names that a plain assignment binds; none for any other statement."""
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    if isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    if not all(isinstance(each, ast.Name | ast.Tuple) for each in targets):
        return []
    return [node.id for each in targets for node in ast.walk(each) if isinstance(node, ast.Name)]


def annotation_of(statement: ast.stmt) -> list[ast.expr]:
    """Return the annotation of a field, by which its values may be converted."""
    if not isinstance(statement, ast.AnnAssign):
        return []
    found = statement.annotation
    if isinstance(found, ast.Constant) and isinstance(found.value, str):
        found = ast.parse(found.value, mode="eval").body
    return [found]


def for_type_checkers(statement: ast.AST) -> bool:
    """Return whether a statement is ``if TYPE_CHECKING``."""
    return isinstance(statement, ast.If) and dotted_name(statement.test).endswith("TYPE_CHECKING")


def says_nothing(statement: ast.stmt) -> bool:
    """Return whether a statement changes nothing when it runs: a docstring, an import, ``pass``."""
    constant = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return constant or isinstance(statement, ast.Import | ast.ImportFrom | ast.Pass) or for_type_checkers(statement)


def registers(statement: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a decorator enters the definition in a table, so that importing the module is using it."""
    calls = (each.func if isinstance(each, ast.Call) else each for each in statement.decorator_list)
    return any("register" in dotted_name(each) for each in calls)


def tokens(node: ast.AST) -> Iterator[str]:
    """Yield a syntax tree as words that are the same in all versions of Python that can parse it."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        yield from ("Raise", dotted_name(node.exc.func))
        return
    yield type(node).__name__
    for name, value in ast.iter_fields(node):
        if name in _DROPPED or value is None or value == []:
            continue
        yield name
        yield from _words(value)
    yield ";"


def _words(value: object) -> Iterator[str]:
    for each in value if isinstance(value, list) else [value]:
        if isinstance(each, ast.stmt) and says_nothing(each) and not isinstance(each, ast.Pass):
            continue
        if isinstance(each, ast.AST):
            yield from tokens(each)
        else:
            yield f"{type(each).__name__} {each!r}"
