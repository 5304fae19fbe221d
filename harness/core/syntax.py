"""A module's source as a table of definitions: what each one says (no docstrings, comments and annotations of variables) and names."""

from __future__ import annotations

import ast
import builtins
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from harness.core.nodes import (
    FUNCTIONS,
    annotation_of,
    assigned,
    dotted,
    dotted_name,
    for_type_checkers,
    joined,
    named_types,
    nodes_of_scope,
    registers,
    says_nothing,
    tokens,
)

_SETTING = ("pydantic:Field", "pydantic.fields:Field")
ON_IMPORT = ""
"""Name of the definition that holds what a module runs when it is imported."""
_LOCATION = re.compile(r"[A-Za-z_]\w*(\.\w+)*:[A-Za-z_]\w*")
_FILE = re.compile(r"package:[\w./-]+|[\w.-]+(/[\w.-]+)*\.(?!py$)[A-Za-z]\w*")
_SUBMODULES = re.compile(r"[A-Za-z_]\w*(\.\w+)*\.")


@dataclass
class Definition:
    """One function, class, method or constant.

    References are written as ``module:name.attribute`` (absolute, followed through imports when they are resolved),
    ``@module:Class.member`` (a member of an instance of a class), ``self.member``, ``super:module:Class.member``,
    ``file:module:path`` (a data file that the module may name), and ``module.*`` (all modules of a package, one of which is chosen
    by a name made at run time).
    """

    kind: str
    """``function``, ``class`` or ``value``."""
    nodes: list[ast.AST] = field(default_factory=list)
    references: set[str] = field(default_factory=set)
    bases: tuple[str, ...] = ()

    @cached_property
    def digest(self) -> str:
        """Return the hash of its syntax tree."""
        digest = hashlib.sha256()
        for node in self.nodes:
            digest.update("\0".join(tokens(node)).encode())
        return digest.hexdigest()


@dataclass
class Table:
    """The definitions of a module by name; members of a class as ``Class.member``."""

    definitions: dict[str, Definition] = field(default_factory=dict)
    imports: dict[str, str] = field(default_factory=dict)
    stars: list[str] = field(default_factory=list)
    """Modules of which everything is imported."""

    def members(self, name: str) -> list[str]:
        """Return the names of a class's members in order, as ``Class.member``."""
        return [each for each in self.definitions if each.startswith(f"{name}.")]


def read_table(source: str, module: str, is_package: bool) -> Table:
    """Return the definitions of a module.

    Raises:
        SyntaxError: the source is not Python.
    """
    reader = _Reader(module, is_package)
    tree = ast.parse(source)
    reader.bind_imports(tree.body)
    reader.drop_descriptions(tree)
    for statement in tree.body:
        reader.define(statement)
    reader.collect()
    return reader.table


class _Reader:
    def __init__(self, module: str, is_package: bool) -> None:
        self.module, self.package = module, module if is_package else module.rpartition(".")[0]
        self.table = Table()
        self.table.definitions[ON_IMPORT] = Definition("value")

    def bind_imports(self, body: Iterable[ast.stmt]) -> None:
        """Note what the module's own imports bind, those for type checkers and in branches included."""
        for statement in body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                bound = self.bound(statement)
                self.table.stars += [target for name, target in bound if name == "*"]
                self.table.imports.update({name: target for name, target in bound if name != "*"})
            elif not isinstance(statement, (*FUNCTIONS, ast.ClassDef)):
                self.bind_imports(child for child in ast.iter_child_nodes(statement) if isinstance(child, ast.stmt))

    def bound(self, statement: ast.Import | ast.ImportFrom) -> list[tuple[str, str]]:
        """Return name to ``module:name`` of an import; of a whole module ``module:``."""
        if isinstance(statement, ast.Import):
            return [
                (each.asname, f"{each.name}:") if each.asname else (top := each.name.partition(".")[0], f"{top}:")
                for each in statement.names
            ]
        base = statement.module or ""
        if statement.level:
            parts = self.package.split(".")
            above = ".".join(parts[: len(parts) - statement.level + 1])
            base = f"{above}.{base}" if base else above
        return [
            ("*", base) if each.name == "*" else (each.asname or each.name, f"{base}:{each.name}")
            for each in statement.names
        ]

    def drop_descriptions(self, tree: ast.Module) -> None:
        """Remove the words of a setting, which are shown and change nothing: ``description=`` of pydantic's ``Field``."""
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (chain := dotted(node.func)) and self.absolute(chain) in _SETTING:
                node.keywords = [each for each in node.keywords if each.arg != "description"]

    def define(self, statement: ast.stmt) -> None:
        """Add a statement of the module to its table."""
        if isinstance(statement, ast.ClassDef):
            self._define_class(statement)
        elif isinstance(statement, FUNCTIONS):
            self._add(statement.name, "function", statement)
            if registers(statement):
                self.table.definitions[ON_IMPORT].references.add(f"{self.module}:{statement.name}")
        elif names := assigned(statement):
            for name in names:
                self._add(name, "value", statement)
        elif for_type_checkers(statement) or not says_nothing(statement):
            nodes = () if for_type_checkers(statement) else (statement,)
            self._add(ON_IMPORT, "value", *nodes)
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id not in self.table.imports:
                    self._add(node.id, "value", *nodes)

    def _define_class(self, statement: ast.ClassDef) -> None:
        name, rest = statement.name, []
        owner = self._add(name, "class")
        plain = any(self._is_dataclass(each) for each in statement.decorator_list)
        for each in statement.body:
            if isinstance(each, FUNCTIONS):
                self._add(f"{name}.{each.name}", "function", each)
            elif names := assigned(each):
                for member in names:
                    self._add(f"{name}.{member}", "value", each, *([] if plain else annotation_of(each)))
            elif not says_nothing(each):
                rest.append(each)
        fields = [n for each in statement.body if isinstance(each, ast.AnnAssign) for n in assigned(each)]
        order = ast.Tuple([ast.Constant(each) for each in fields], ast.Load())
        owner.nodes += [*statement.decorator_list, *statement.bases, *statement.keywords, order, *rest]
        chains = [dotted(base.value if isinstance(base, ast.Subscript) else base) for base in statement.bases]
        owner.bases = tuple(found for chain in chains if chain and (found := self.absolute(chain)))
        if registers(statement):
            self.table.definitions[ON_IMPORT].references.add(f"{self.module}:{name}")

    def _is_dataclass(self, decorator: ast.expr) -> bool:
        """Return whether a decorator makes a class whose fields take any value, whatever their annotations say."""
        chain = dotted(decorator.func if isinstance(decorator, ast.Call) else decorator)
        return bool(chain) and self.absolute(chain) == "dataclasses:dataclass"

    def _add(self, name: str, kind: str, *nodes: ast.AST) -> Definition:
        found = self.table.definitions.setdefault(name, Definition(kind))
        found.nodes += nodes
        return found

    def collect(self) -> None:
        """Find what every definition refers to."""
        for name, definition in self.table.definitions.items():
            owner = name.rpartition(".")[0]
            for node in definition.nodes:
                _Names(self, definition.references, owner).visit(node)

    def absolute(self, chain: Sequence[str]) -> str:
        """Return ``module:name.attribute`` of a dotted name of this module; empty for builtins and unknown names."""
        head, rest = chain[0], chain[1:]
        if head in self.table.imports:
            return joined(self.table.imports[head], rest)
        if head in self.table.definitions or (self.table.stars and not hasattr(builtins, head)):
            return joined(f"{self.module}:{head}", rest)
        return ""


@dataclass
class _Scope:
    """The names that a function, lambda or comprehension binds."""

    names: set[str] = field(default_factory=set)
    types: dict[str, list[str]] = field(default_factory=dict)
    """Parameter to the classes that its annotation names."""
    imports: dict[str, str] = field(default_factory=dict)
    effects: dict[str, str] = field(default_factory=dict)
    """What an import runs if its name is not used."""
    used: set[str] = field(default_factory=set)
    instance: str = ""
    """The first parameter of a method."""


class _Names(ast.NodeVisitor):
    """Collects what a definition refers to, by the scoping rules of Python."""

    def __init__(self, reader: _Reader, found: set[str], owner: str) -> None:
        self.reader, self.found, self.owner = reader, found, owner
        self.scopes: list[_Scope] = []

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        """Visit a function: decorators and defaults outside, its body with the names it binds."""
        for each in (*node.decorator_list, *node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(each)
        scope = self._scope(node.args, node.body)
        if (
            self.owner
            and not self.scopes
            and node.args.args
            and "staticmethod" not in map(dotted_name, node.decorator_list)
        ):
            scope.instance = node.args.args[0].arg
        self._enter(scope, node.body)

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        """Visit a lambda in a scope of its own."""
        for each in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(each)
        self._enter(self._scope(node.args, [node.body]), [node.body])

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp) -> None:
        self.visit(node.generators[0].iter)
        names = {each.id for part in node.generators for each in ast.walk(part.target) if isinstance(each, ast.Name)}
        inner: list[ast.AST] = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        inner += [test for part in node.generators for test in part.ifs]
        self._enter(_Scope(names), [*inner, *(part.iter for part in node.generators[1:])])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension

    def _enter(self, scope: _Scope, body: Iterable[ast.AST]) -> None:
        self.scopes.append(scope)
        for each in body:
            self.visit(each)
        self.scopes.pop()
        self.found.update(target for name, target in scope.effects.items() if name not in scope.used)

    def _scope(self, arguments: ast.arguments, body: Iterable[ast.AST]) -> _Scope:
        scope, outer = _Scope(), set[str]()
        named = (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg)
        for argument in filter(None, named):
            scope.names.add(argument.arg)
            if types := [found for chain in named_types(argument.annotation) if (found := self.reader.absolute(chain))]:
                scope.types[argument.arg] = types
        for node in nodes_of_scope(body):
            if isinstance(node, ast.Global | ast.Nonlocal):
                outer.update(node.names)
            elif isinstance(node, ast.Import | ast.ImportFrom):
                scope.imports.update(self.reader.bound(node))
                scope.effects.update(self.reader.bound(node))
                if isinstance(node, ast.Import):
                    scope.effects.update(
                        (each.name.partition(".")[0], f"{each.name}:") for each in node.names if not each.asname
                    )
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
                scope.names.add(node.id)
            elif isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.ExceptHandler, ast.MatchAs, ast.MatchStar)):
                scope.names.add(node.name or "")
        scope.names -= outer
        return scope

    def visit_Attribute(self, node: ast.Attribute) -> None:
        """Follow ``a.b.c`` as a whole."""
        chain = dotted(node)
        if chain:
            self._refer(chain)
        elif isinstance(node.value, ast.Call) and dotted_name(node.value.func) == "super" and self.owner:
            self.found.add(f"super:{self.reader.module}:{self.owner}.{node.attr}")
        else:
            self.visit(node.value)

    def visit_Name(self, node: ast.Name) -> None:
        """Follow a name."""
        if isinstance(node.ctx, ast.Load):
            self._refer([node.id])

    def _refer(self, chain: Sequence[str]) -> None:
        head, rest = chain[0], chain[1:]
        for scope in reversed(self.scopes):
            if head == scope.instance:
                self.found.add(f"self.{rest[0] if rest else '*'}")
                return
            if head in scope.types:
                self.found.update(f"@{known}.{rest[0]}" for known in scope.types[head] if rest)
                return
            if head in scope.imports:
                scope.used.add(head)
                self.found.add(joined(scope.imports[head], rest))
                return
            if head in scope.names:
                return
        if found := self.reader.absolute(chain):
            self.found.add(found)

    def visit_Constant(self, node: ast.Constant) -> None:
        """Follow a text of the form ``module:function``, or one that may name a data file."""
        if isinstance(node.value, str) and _LOCATION.fullmatch(node.value):
            self.found.add(node.value)
        elif isinstance(node.value, str) and _FILE.fullmatch(node.value):
            self.found.add(f"file:{self.reader.module}:{node.value}")

    def visit_JoinedStr(self, node: ast.JoinedStr) -> None:
        """Take a text that begins with ``package.`` and goes on with a value for the name of one of its modules."""
        first = node.values[0] if len(node.values) > 1 else None
        if isinstance(first, ast.Constant) and isinstance(first.value, str) and _SUBMODULES.fullmatch(first.value):
            self.found.add(f"{first.value}*")
        for each in node.values:
            if isinstance(each, ast.FormattedValue):
                self.visit(each)

    def visit_Raise(self, node: ast.Raise) -> None:
        """Follow what is raised, not the words it is raised with."""
        if node.exc is not None:
            self.visit(node.exc.func if isinstance(node.exc, ast.Call) else node.exc)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        """Leave the annotation out."""
        for each in filter(None, (node.target, node.value)):
            self.visit(each)

    def visit_If(self, node: ast.If) -> None:
        """Leave out what only type checkers read."""
        if not for_type_checkers(node):
            self.generic_visit(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        """Bound with the scope."""

    visit_ImportFrom = visit_Import
