"""Parser of expressions.

Only brackets make the parser call itself. Binary operators are kept on an explicit stack, and
chains of prefixes, fields and ``? :`` are loops, so no expression can exhaust the stack.
"""

from collections.abc import Iterable
from typing import NoReturn

from flowkit._expressions.errors import InvalidExpression
from flowkit._expressions.lexer import Kind, Token, tokens
from flowkit._expressions.syntax_tree import (
    Call,
    Chain,
    Choice,
    Index,
    ListOf,
    Literal,
    Logic,
    Loop,
    MapOf,
    Name,
    Node,
    Prefix,
    Select,
)
from flowkit._expressions.values import INT_MAX

MAX_BRACKETS = 64
"""Maximum nesting of brackets."""
LEVELS = {
    symbol: level
    for level, symbols in enumerate(("||", "&&", "== != < <= > >= in", "+ -", "* / %"), start=1)
    for symbol in symbols.split()
}
"""Precedence of binary operators; those of a higher level bind more tightly."""
MACROS = {"all": (2,), "exists": (2,), "exists_one": (2,), "map": (2, 3), "filter": (2,)}
"""Numbers of arguments that each macro accepts."""
RESERVED = frozenset(
    "as break const continue else for function if import let loop package namespace return var void"
    " while".split()
)


def parse(source: str) -> Node:
    """Parse an expression.

    Raises:
        InvalidExpression: the source is not a valid expression.
    """
    return _Parser(tokens(source)).whole()


class _Parser:
    def __init__(self, found: list[Token]) -> None:
        self._tokens = found
        self._place = 0
        self._brackets = 0

    # ------------------------------------------------------------ tokens

    @property
    def _token(self) -> Token:
        return self._tokens[self._place]

    def _next(self) -> Token:
        token = self._tokens[self._place]
        self._place += 1
        return token

    def _sees(self, symbol: str) -> bool:
        token = self._tokens[self._place]
        return token.kind is Kind.SYMBOL and token.text == symbol

    def _accept(self, symbol: str) -> bool:
        if self._sees(symbol):
            self._place += 1
            return True
        return False

    def _expect(self, symbol: str) -> None:
        if not self._accept(symbol):
            self._fail(f"expected {symbol!r}, found {self._shown()}")

    def _shown(self) -> str:
        token = self._token
        return token.text if token.kind is Kind.END else repr(token.text[:40])

    def _fail(self, reason: str) -> NoReturn:
        raise InvalidExpression(reason, self._token.position)

    # ------------------------------------------------------------ operators

    def whole(self) -> Node:
        node = self._expression()
        if self._token.kind is not Kind.END:
            self._fail(f"expected an operator or the end, found {self._shown()}")
        return node

    def _expression(self) -> Node:
        start = self._token.position
        arms: list[tuple[Node, Node]] = []
        while True:
            node = self._operators()
            if not self._accept("?"):
                return Choice(start, arms, node) if arms else node
            self._open()
            value = self._expression()
            self._brackets -= 1
            self._expect(":")
            arms.append((node, value))

    def _operators(self) -> Node:
        operands = [self._operand()]
        waiting: list[Token] = []
        while True:
            level = LEVELS.get(self._token.text, 0) if self._token.kind is Kind.SYMBOL else 0
            while waiting and LEVELS[waiting[-1].text] >= level:
                right = operands.pop()
                operands[-1] = _join(operands[-1], waiting.pop(), right)
            if not level:
                return operands[0]
            waiting.append(self._next())
            operands.append(self._operand())

    def _operand(self) -> Node:
        token = self._token
        for symbol in ("!", "-"):
            count = 0
            while self._accept(symbol):
                count += 1
            if not count:
                continue
            if self._sees("-") or self._sees("!"):
                self._fail(f"unexpected {self._shown()} after {symbol!r}")
            if (
                symbol == "-"
                and self._token.kind is Kind.LITERAL
                and type(self._token.value) in (int, float)
            ):
                count -= 1
                operand = self._fields(Literal(token.position, -self._next().value))
            else:
                operand = self._fields(self._primary())
            return Prefix(token.position, symbol, count, operand) if count else operand
        return self._fields(self._primary())

    # ------------------------------------------------------------ operands

    def _primary(self) -> Node:
        token = self._token
        if token.kind is Kind.LITERAL:
            self._place += 1
            if type(token.value) is int and token.value > INT_MAX:
                raise InvalidExpression(f"the number {token.text} exceeds 64 bits", token.position)
            return Literal(token.position, token.value)
        if token.kind is Kind.NAME:
            self._place += 1
            if token.text in RESERVED:
                raise InvalidExpression(f"{token.text!r} is a reserved word", token.position)
            return self._call(token, None) if self._sees("(") else Name(token.position, token.text)
        if self._accept("("):
            self._open()
            node = self._expression()
            self._close(")")
            return node
        if self._accept("["):
            return ListOf(token.position, self._items("]"))
        if self._accept("{"):
            return self._map(token)
        return self._fail(f"expected a value, found {self._shown()}")

    def _fields(self, node: Node) -> Node:
        while True:
            token = self._token
            if self._accept("."):
                name = self._next()
                if name.kind is Kind.QUOTED_NAME:
                    node = Select(token.position, node, name.text)
                elif name.kind is not Kind.NAME:
                    self._place -= 1
                    self._fail(f"expected a name after '.', found {self._shown()}")
                elif self._sees("("):
                    node = self._call(name, node)
                else:
                    node = Select(token.position, node, name.text)
            elif self._accept("["):
                self._open()
                node = Index(token.position, node, self._expression())
                self._close("]")
            else:
                return node

    def _call(self, name: Token, target: Node | None) -> Node:
        self._expect("(")
        arguments = self._items(")")
        if target is None:
            return (
                _existence(name, arguments)
                if name.text == "has"
                else Call(name.position, name.text, arguments, False)
            )
        if name.text in MACROS:
            counts = MACROS[name.text]
            if len(arguments) not in counts:
                raise InvalidExpression(
                    f"{name.text}() takes {counted(counts)}, not {len(arguments)}", name.position
                )
            variable = arguments[0]
            if not isinstance(variable, Name):
                raise InvalidExpression(
                    f"the first argument of {name.text}() must be a plain name", variable.position
                )
            return Loop(name.position, name.text, target, variable.name, arguments[1:])
        return Call(name.position, name.text, [target, *arguments], True)

    def _items(self, end: str) -> list[Node]:
        self._open()
        items: list[Node] = []
        while not self._sees(end):
            items.append(self._expression())
            if not self._accept(","):
                break
            if end == ")" and self._sees(end):
                self._fail(f"expected a value after ',', found {self._shown()}")
        self._close(end)
        return items

    def _map(self, token: Token) -> Node:
        self._open()
        entries = []
        while not self._sees("}"):
            key = self._expression()
            self._expect(":")
            entries.append((key, self._expression()))
            if not self._accept(","):
                break
        self._close("}")
        return MapOf(token.position, entries)

    def _open(self) -> None:
        self._brackets += 1
        if self._brackets > MAX_BRACKETS:
            self._fail(f"brackets are nested more than {MAX_BRACKETS} levels deep")

    def _close(self, symbol: str) -> None:
        self._brackets -= 1
        self._expect(symbol)


def counted(counts: Iterable[int]) -> str:
    """Return an error text with the possible numbers of arguments."""
    found = sorted(counts)
    return f"{' or '.join(map(str, found))} argument{'' if found == [1] else 's'}"


def _join(left: Node, operator: Token, right: Node) -> Node:
    """Join two operands. Operators of one level become one node."""
    symbol, position = operator.text, operator.position
    if symbol in ("&&", "||"):
        if not isinstance(left, Logic) or left.symbol != symbol:
            return Logic(position, symbol, [left, right])
        left.operands.append(right)
    elif not isinstance(left, Chain) or LEVELS[left.rest[-1][0]] != LEVELS[symbol]:
        return Chain(position, left, [(symbol, position, right)])
    else:
        left.rest.append((symbol, position, right))
    left.add_part(right)
    return left


def _existence(name: Token, arguments: list[Node]) -> Node:
    if len(arguments) != 1 or not isinstance(arguments[0], Select) or arguments[0].test:
        raise InvalidExpression("has() takes one field, such as has(params.limit)", name.position)
    return Select(name.position, arguments[0].operand, arguments[0].field, test=True)
