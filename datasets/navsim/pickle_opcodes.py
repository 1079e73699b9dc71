"""Pickles looked through before they are read: what would end the reader or fill the memory is refused."""

from __future__ import annotations

from beyonddrive.structures.errors import BeyondDriveError


class PlainPickleError(BeyondDriveError, ValueError):
    """A pickle is damaged, or asks for something that is not plain data; nothing of it was run."""


# Bytes of the argument that follows an opcode, or how to find out.
_ONE_BYTE_LENGTH, _FOUR_BYTE_LENGTH, _EIGHT_BYTE_LENGTH, _TWO_LINES, _REFUSED = range(-1, -6, -1)

# What an opcode does to the stack.
(
    _PUSH, _NOTHING, _PUT, _MEMOIZE, _GET, _MARK, _SET_ITEMS, _TUPLE, _TUPLE_OF, _TO_MARK, _TO_MARK_PUSH,
    _POP, _POP_TWO, _POP_THREE, _SET_ITEM, _ADD_ITEMS, _FROZENSET, _POP_ONE, _DUP, _STOP,
) = range(20)  # fmt: skip

_SIZES = {
    0: b"()]}.012NQRablestud\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94",
    1: b"Kqh\x80\x82",
    2: b"M\x83",
    4: b"Jjr\x84",
    8: b"G\x95",
    _ONE_BYTE_LENGTH: b"UC\x8a\x8c",
    _FOUR_BYTE_LENGTH: b"TBX\x8b",
    _EIGHT_BYTE_LENGTH: b"\x8d\x8e\x96",
    _TWO_LINES: b"c",
}
"""Opcodes of protocols 2 to 5 by the size of their argument; all others are refused."""
_EFFECTS = {
    _NOTHING: b"Q\x80\x95",
    _PUT: b"qr",
    _MEMOIZE: b"\x94",
    _GET: b"hj",
    _MARK: b"(",
    _SET_ITEMS: b"u",
    _TUPLE: b"t",
    _TUPLE_OF: b"\x85\x86\x87",
    _TO_MARK: b"1e",
    _TO_MARK_PUSH: b"l",
    _POP: b"0",
    _POP_ONE: b"ab",
    _POP_TWO: b"R\x81\x93",
    _POP_THREE: b"\x92",
    _SET_ITEM: b"s",
    _ADD_ITEMS: b"\x90",
    _FROZENSET: b"\x91",
    _DUP: b"2",
    _STOP: b".",
}
"""Opcodes by what they do to the stack; all others push a value that is no tuple."""
_DICT = ord("d")


def _table(groups: dict[int, bytes], default: int) -> list[int]:
    table = [default] * 256
    for value, opcodes in groups.items():
        for opcode in opcodes:
            table[opcode] = value
    return table


_SIZE_OF, _EFFECT_OF = _table(_SIZES, _REFUSED), _table(_EFFECTS, _PUSH)
_EFFECT_OF[_DICT] = _SET_ITEMS

# What is on the stack, as far as it matters: a tuple in a tuple is hashed, as a key, by a call in a call.
_OTHER, _FLAT_TUPLE, _NESTED_TUPLE = 0, 1, 2


def check_opcodes(content: bytes) -> None:
    """Refuse a pickle that is too short for the lengths and memo indices it states, or would end the reader.

    One flipped bit in a memo index makes the unpickler fill up to 64 GB; a key of tuples, nested 200,000
    deep, exhausts its stack. So the stack is followed here by the kind of its values alone.

    Raises:
        PlainPickleError: If something is refused; nothing of the file was run.
    """
    try:
        _follow(content)
    except IndexError:
        raise PlainPickleError("corrupt pickle: it takes more from its stack than is there") from None


def _follow(content: bytes) -> None:
    size_of, effect_of, size = _SIZE_OF, _EFFECT_OF, len(content)
    stack: list[int] = []
    marks: list[list[int]] = []
    memo: dict[int, int] = {}
    position = 0
    while position < size:
        opcode, start = content[position], position + 1
        argument, effect = size_of[opcode], effect_of[opcode]
        if argument >= 0:
            position = start + argument
        elif argument == _ONE_BYTE_LENGTH:
            position = start + 1 + (content[start] if start < size else 0)
        elif argument == _FOUR_BYTE_LENGTH:
            position = start + 4 + int.from_bytes(content[start : start + 4], "little")
        elif argument == _EIGHT_BYTE_LENGTH:
            position = start + 8 + int.from_bytes(content[start : start + 8], "little")
        elif argument == _TWO_LINES:
            position = start
            for _ in range(2):
                position = content.find(b"\n", position) + 1 or size + 1
        else:
            raise PlainPickleError(f"corrupt pickle: {content[start - 1 : start + 4]!r} at byte {start - 1}")
        if effect == _PUSH:
            stack.append(_OTHER)
        elif effect == _MEMOIZE:
            memo[len(memo)] = stack[-1]
        elif effect == _GET:
            stack.append(memo.get(int.from_bytes(content[start:position], "little"), _OTHER))
        elif effect == _PUT:
            index = int.from_bytes(content[start:position], "little")
            if index >= start:
                raise PlainPickleError(f"corrupt pickle: memo index {index} at byte {start - 1}")
            memo[index] = stack[-1]
        elif effect == _MARK:
            marks.append(stack)
            stack = []
        elif effect == _TUPLE_OF:
            count = opcode - 0x84
            kind = _kind_of_tuple(stack[-count:])
            if len(stack) < count:
                raise IndexError
            del stack[-count:]
            stack.append(kind)
        elif effect == _SET_ITEMS:
            _check_keys(stack[::2], start)
            stack = marks.pop()
            if opcode == _DICT:
                stack.append(_OTHER)
        elif effect == _POP_TWO:
            stack.pop()
            stack[-1] = _OTHER
        elif effect == _POP_ONE:
            stack.pop()
        elif effect == _TUPLE:
            kind = _kind_of_tuple(stack)
            stack = marks.pop()
            stack.append(kind)
        elif effect == _STOP:
            return
        elif effect == _SET_ITEM:
            _check_keys(stack[-2:-1], start)
            del stack[-2:]
        elif effect in (_ADD_ITEMS, _FROZENSET):
            _check_keys(stack, start)
            stack = marks.pop()
            if effect == _FROZENSET:
                stack.append(_OTHER)
        elif effect == _TO_MARK:
            stack = marks.pop()
        elif effect == _TO_MARK_PUSH:
            stack = marks.pop()
            stack.append(_OTHER)
        elif effect == _POP:
            if stack:
                stack.pop()
            else:
                stack = marks.pop()
        elif effect == _POP_THREE:
            stack.pop()
            stack.pop()
            stack[-1] = _OTHER
        elif effect == _DUP:
            stack.append(stack[-1])
    raise PlainPickleError(f"corrupt or truncated pickle: it goes on after its {size} bytes")


def _kind_of_tuple(items: list[int]) -> int:
    return _NESTED_TUPLE if any(items) else _FLAT_TUPLE


def _check_keys(kinds: list[int], position: int) -> None:
    if _NESTED_TUPLE in kinds:
        raise PlainPickleError(
            f"refused a key that is a tuple of tuples (byte {position - 1}): keys of a log are names"
        )
