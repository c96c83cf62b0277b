"""Templates and variables from a seed: each is a text of Jinja that jinja2 can render, or refuses for a reason.

Expressions have types, so most templates render; a few operands of the wrong type test what is refused."""

import random
from collections.abc import Callable
from typing import Any

DEPTH_MAX = 3
TEXTS = ["", "a", "Hello there.", "  x \n", "é🚲", "it's", '"q"', "it's \"q\"", "<b>&amp;", "a,b,,c", "12", " -3.5 ", "A b-c (d) e",
         "\t{x}\x00\x1f\x7f", "one\ntwo\r\n\nthree", "ß ŉ İ", "%s", "{}", "\u2028\u00a0\u200b", "ABC", "007", "1_000", "0x1f", "1e3", "nan", "don't stop"]
INTS = [0, 1, 2, 3, -1, -2, 7, 10, 255, 1000, -17, 2**31, 2**63 - 1, -(2**63), 2**64 - 1]
BIG_INTS = [2**64, 10**30, -(10**25), 2**63]
FLOATS = [0.0, -0.0, 0.5, 1.0, -2.5, 1e-5, 1e-7, 1e16, 1e22, 123456789.125, 0.1, 100.0, 2.675, 5e-324, 1.5e300, 1e15, 3.0]
ROLES = ["system", "user", "assistant", "tool"]
TEXT_METHODS = ["upper()", "lower()", "title()", "capitalize()", "swapcase()", "strip()", "lstrip()", "rstrip()", "strip('a ')", "lstrip('\\n ')",
                "rstrip('.e')", "zfill(6)", "center(9)", "center(8, '*')", "ljust(7)", "rjust(7, '-')", "expandtabs(3)", "removeprefix('a')",
                "removesuffix('.')", "replace('a', 'bb')", "replace('', '-')", "replace('e', '', 1)", "casefold()", "format(1, 'x')", "format_map({'x': 2})"]
TEXT_LISTS = ["split()", "split(',')", "split(',', 1)", "split(None, 1)", "rsplit(None, 1)", "rsplit(',', 1)", "splitlines()", "splitlines(true)",
              "partition(',')", "rpartition(' ')"]
TEXT_TESTS = ["isalpha()", "isdigit()", "isalnum()", "isspace()", "isupper()", "islower()", "istitle()", "isascii()", "isidentifier()", "isdecimal()",
              "startswith('a')", "endswith('.')", "startswith(('A', ' '))", "startswith('b', 1)", "endswith('b', 0, 3)", "isprintable()", "isnumeric()"]
TEXT_NUMBERS = ["find('e')", "find('x', 2)", "rfind('e')", "count('e')", "count('')", "index('a')", "rindex(',')", "find('e', -3)", "count('e', 1, -1)"]
TEXT_FILTERS = ["upper", "lower", "title", "capitalize", "trim", "trim('a')", "replace('a', 'b')", "replace('e', 'xx', 1)", "indent", "indent(2, true)",
                "indent('> ', blank=true)", "truncate(8)", "truncate(8, true, '..')", "truncate(9, leeway=0)", "center(9)", "reverse", "escape", "e",
                "string", "default('d')", "default('d', true)", "d('x', boolean=true)", "urlencode", "forceescape", "safe", "format(1)", "safe | upper"]
LIST_FILTERS = ["sort", "sort(true)", "sort(reverse=true, case_sensitive=true)", "unique | list", "reverse | list", "list", "batch(2) | list", "slice(3) | list",
                "batch(3, 'x') | list", "slice(2, fill_with='y') | list", "map('string') | list", "map('upper') | list", "select | list", "reject('none') | list",
                "select('string') | list", "reject('equalto', 'a') | list", "map('default', 'z') | list", "map('length') | list", "select('in', ['a', 'b', 1]) | list"]
VALUE_TESTS = ["defined", "undefined", "none", "string", "number", "integer", "float", "boolean", "mapping", "sequence", "iterable", "callable", "true", "false",
               "odd", "even", "lower", "upper", "divisibleby(3)", "divisibleby 2", "eq 1", "equalto('a')", "ne(2)", "gt(1)", "lessthan 5", "in [1, 'a']", "sameas none",
               "escaped", "filter", "test"]
FORMATS = ["%s", "%d", "%5d|", "%-5s|", "%05d", "%+d", "%x", "%#X", "%o", "%.2f", "%e", "%g", "%8.3f", "%r", "%5s", "%.3s", "%i%%", "%c", "%G"]
SPECS = ["{}", "{:>6}", "{:<6}|", "{:^7}", "{:*^7}", "{!r}", "{!s:>8}", "{0}{0}", "{:05}", "{:,}", "{:.2f}", "{:e}", "{:x}", "{:#b}", "{:+}", "{:_}", "{:%}", "{:g}", "{{}}", "{:.3}"]
JSON_OPTIONS = ["", "()", "(indent=2)", "(ensure_ascii=true)", "(separators=(',', ':'))", "(sort_keys=true)", "(indent=0)", "(indent='\\t', separators=(', ', ' : '))",
                "(true)", "(sort_keys=true, ensure_ascii=true, indent=1)"]
LOOP = ["loop.index", "loop.index0", "loop.revindex", "loop.revindex0", "loop.first", "loop.last", "loop.length", "loop.previtem", "loop.nextitem", "loop.depth",
        "loop.cycle('a', 'b')", "loop.changed(loop.index // 2)"]


class Generator(random.Random):
    """Makes templates. What it makes follows from its seed alone."""

    def template(self) -> str:
        """A template."""
        self.in_loop, self.n_names = 0, 0
        namespace = "{% set ns = namespace(a=1, b='') %}" if self.random() < 0.8 else ""
        return namespace + self.statements(self.randint(1, 4), 0)

    def variables(self) -> dict[str, Any]:
        """The variables of a rendering: a conversation, and values of every type."""
        call = lambda: {"id": f"c{self.randint(0, 99)}", "type": "function", "function": {"name": self.choice(["f", "get"]), "arguments": self.mapping()}}
        message = lambda: {"role": self.choice(ROLES), "content": self.choice(TEXTS), **({"tool_calls": [call() for _ in range(self.randint(1, 2))]} if self.random() < 0.3 else {})}
        return {"messages": [message() for _ in range(self.randint(0, 4))], "tools": self.choice([None, [call()]]), "documents": None, "n": self.choice(INTS),
                "x": self.choice(FLOATS), "s": self.choice(TEXTS), "d": self.mapping(), "words": [self.choice(TEXTS) for _ in range(self.randint(0, 5))],
                "numbers": [self.choice(INTS + FLOATS) for _ in range(self.randint(0, 5))], "flag": self.random() < 0.5, "nil": None,
                "mixed": [self.value(0) for _ in range(self.randint(0, 4))], "people": [{"name": self.choice(["Ann", "bob", "Cy"]), "age": self.randint(1, 3)} for _ in range(self.randint(0, 4))]}

    def mapping(self) -> dict[str, Any]:
        return {self.choice(["b", "a", "é", "items", "key 1", "Z"]): self.value(1) for _ in range(self.randint(0, 4))}

    def value(self, depth: int) -> Any:
        kinds: list[Callable[[], Any]] = [lambda: self.choice(TEXTS), lambda: self.choice(INTS), lambda: self.choice(FLOATS), lambda: None, lambda: self.random() < 0.5]
        if depth < 2:
            kinds += [lambda: [self.value(depth + 1) for _ in range(self.randint(0, 3))], lambda: {self.choice("abc"): self.value(depth + 1) for _ in range(self.randint(0, 2))}]
        return self.choice(kinds)()

    # Statements.

    def tag(self, body: str) -> str:
        left, right = self.choice(["", "", "", "-", "+"]), self.choice(["", "", "", "-", "+"])
        return f"{{%{left}{self.choice([' ', '', '  '])}{body} {right}%}}"

    def data(self) -> str:
        return self.choice(["", "", " ", "\n", "  \n", "\n  ", "x", " y ", "\r\n", "a\n\n", "<|im_start|>", "\t", "}}", "{ ", "%}", "#}", " \n \n"])

    def statements(self, n: int, depth: int) -> str:
        return "".join(self.data() + self.statement(depth) for _ in range(n)) + self.data()

    def body(self, depth: int) -> str:
        return self.statements(self.randint(1, 2), depth + 1)

    def statement(self, depth: int) -> str:
        simple = [self.output, self.output, self.output, self.assignment, self.comment, self.raw]
        nested = [self.condition, self.loop, self.loop, self.set_block, self.with_block, self.filter_block, self.macro, self.call_block, self.generation]
        if self.in_loop:
            simple.append(self.jump)
        make = self.choice(simple if depth >= DEPTH_MAX - 1 else simple + nested)
        return make(depth)

    def output(self, depth: int) -> str:
        left, right = self.choice(["", "", "", "-"]), self.choice(["", "", "", "-"])
        return f"{{{{{left} {self.any(depth)} {right}}}}}"

    def assignment(self, depth: int) -> str:
        name = self.choice(["v", "w", "ns.a", "ns.b"])
        if self.random() < 0.1:
            return self.tag(f"set v, w = {self.any(depth)}, {self.any(depth)}") + "{{ v }}"
        return self.tag(f"set {name} = {self.any(depth)}") + f"{{{{ {name} }}}}"

    def comment(self, depth: int) -> str:
        return self.choice(["{# x #}", "{#- {% generation %} -#}", "{#\n {{ y }} \n-#}", "{#+ z +#}", "{##}"])

    def raw(self, depth: int) -> str:
        return self.choice(["{% raw %}", "{%- raw -%}", "{%+raw%}"]) + self.choice(["\n{{ x }}\n", " {% if %} ", "a\n ", "", "{# #}"]) + self.tag("endraw")

    def jump(self, depth: int) -> str:
        return self.tag(f"if {self.bool(depth)}") + self.tag(self.choice(["break", "continue"])) + self.tag("endif")

    def condition(self, depth: int) -> str:
        middle = self.tag(f"elif {self.bool(depth)}") + self.body(depth) if self.random() < 0.3 else ""
        other = self.tag("else") + self.body(depth) if self.random() < 0.5 else ""
        return self.tag(f"if {self.bool(depth)}") + self.body(depth) + middle + other + self.tag("endif")

    def loop(self, depth: int) -> str:
        self.in_loop += 1
        target, items = self.choice([("i", self.list(depth)), ("i", self.any(depth)), ("i", self.text(depth)), ("k, v", "d.items()"), ("k, v", "d | items"),
                                     ("m", "messages"), ("m", "messages[1:]"), ("k, v", "d | dictsort"), ("i", f"range({self.randint(0, 4)})"), ("i", "[[1, [2]], [3]] ")])
        test = f" if {self.bool(depth)}" if self.random() < 0.2 else ""
        inside = f"{{{{ {self.choice(LOOP)} }}}}" if self.random() < 0.6 else ""
        text = self.tag(f"for {target} in {items}{test}") + inside + f"{{{{ {target.split(', ')[-1]} }}}}" + self.body(depth)
        self.in_loop -= 1
        other = self.tag("else") + self.body(depth) if self.random() < 0.3 else ""
        return text + other + self.tag("endfor")

    def set_block(self, depth: int) -> str:
        jumps, self.in_loop = self.in_loop, 0
        text = self.tag("set v" + self.choice(["", " | upper", " | trim | length"])) + self.body(depth) + self.tag("endset") + "{{ v }}"
        self.in_loop = jumps
        return text

    def with_block(self, depth: int) -> str:
        return self.tag(f"with v = {self.any(depth)}, w = {self.any(depth)}") + "{{ v ~ w }}" + self.body(depth) + self.tag("endwith")

    def filter_block(self, depth: int) -> str:
        jumps, self.in_loop = self.in_loop, 0
        text = self.tag("filter " + self.choice(["upper", "trim", "replace('a', 'b') | title", "indent(2)"])) + self.body(depth) + self.tag("endfilter")
        self.in_loop = jumps
        return text

    def macro(self, depth: int) -> str:
        jumps, self.in_loop = self.in_loop, 0
        self.n_names += 1
        name = f"m{self.n_names}"
        extra = self.choice(["", "", "{{ varargs }}", "{{ kwargs }}", "{{ caller() if caller else 'no' }}"])
        text = self.tag(f"macro {name}(p, q={self.any(DEPTH_MAX)}, r='r')") + "{{ p }}{{ q }}" + extra + self.body(depth) + self.tag("endmacro")
        self.in_loop = jumps
        call = self.choice([f"{name}({self.any(depth)})", f"{name}(1, 2, 3)", f"{name}(q=2)", f"{name}(1, 2, 3, 4)", f"{name}(p=1, z=2)", f"{name}(*[1, 2])", f"{name}(**{{'q': 1}})"])
        return text + f"{{{{ {call} }}}}"

    def call_block(self, depth: int) -> str:
        jumps, self.in_loop = self.in_loop, 0
        self.n_names += 1
        name = f"c{self.n_names}"
        text = self.tag(f"macro {name}(p)") + "[{{ caller(p) }}]" + self.tag("endmacro") + self.tag(f"call(u) {name}({self.any(depth)})") + "{{ u }}" + self.body(depth) + self.tag("endcall")
        self.in_loop = jumps
        return text

    def generation(self, depth: int) -> str:
        jumps, self.in_loop = self.in_loop, 0
        text = self.tag("generation") + self.body(depth) + self.tag("endgeneration")
        self.in_loop = jumps
        return text

    # Expressions.

    def any(self, depth: int) -> str:
        kinds = [self.text, self.text, self.int, self.float, self.list, self.dict, self.bool, self.odd]
        return self.choice(kinds)(depth)

    def odd(self, depth: int) -> str:
        """What is easily got wrong: undefined values, wrong types, precedence."""
        a, b = self.any(depth + 1) if depth < DEPTH_MAX else "1", self.any(depth + 1) if depth < DEPTH_MAX else "'a'"
        return self.choice(["nothing", "nil", "nothing.a", "d.nothing", "messages[9]", "nothing | length", "nothing | list", "nothing | first", "nothing | join", "nothing ~ 'x'", "nothing + 1",
                            "nothing == nothing2", "not nothing", "nothing | default(1)", "nothing | items | list", "nothing | upper", "nothing is iterable", f"{a} + {b}", f"{a} - {b}", f"{a} < {b}",
                            f"{a} == {b}", f"{a} in {b}", f"-{a}", f"+{a}", f"({a})[0]", f"({a}).b", f"({a})['b']", f"{a} | length", f"{a} | list", f"{a} | first", f"{a} | last", f"{a} | string",
                            f"{a} | join(',')", f"{a} | int", f"{a} | float", f"{a} | tojson", f"{a} ~ {b}", f"{a} and {b}", f"{a} or {b}", f"{a} if {b}", f"({a}, {b})", f"({a},)", f"[{a}, {b}]",
                            f"{{{a}: {b}}}", "range is callable", "d.items is callable", "ns", "s.a.b", "x.is_integer()", "'a' 'b'", "1 if flag", "- 2 ** 2", "2 ** 3 ** 2", "-3 | abs", "1 < 2 < 3", "3 > 2 == true",
                            "not 1 == 2", "1.e3 if 0", "d.pop('a')", "words.append(1)", "joiner(', ')()", "namespace(a=1).a", "dict(a=1, b=2)", "dict([('a', 1)])",
                            "cycler(1, 2).next()", "none | string", "true | string", "s | attr('no')", "d | attr('a')", "''.join(words)",
                            "s is string and s", "words is sequence", "(1, 2) is sequence", "messages is mapping", "loop.index is defined", "d.a is defined", "s[:]", "'%s' % nothing", "'{}'.format(nothing)"])

    def text(self, depth: int) -> str:
        leaf = [lambda: self.quoted(self.choice(TEXTS)), lambda: "s", lambda: "messages[0].content", lambda: "messages[-1]['role']", lambda: "words[0]"]
        if depth >= DEPTH_MAX:
            return self.choice(leaf)()
        t = lambda: self.text(depth + 1)
        more = [lambda: f"{t()} ~ {self.any(depth + 1)}", lambda: f"({t()} + {t()})", lambda: f"{t()} | {self.choice(TEXT_FILTERS)}", lambda: f"({t()}).{self.choice(TEXT_METHODS)}",
                lambda: f"({t()})[{self.slice(depth)}]", lambda: f"{self.any(depth + 1)} | tojson{self.choice(JSON_OPTIONS)}", lambda: f"{self.list(depth + 1)} | join({self.quoted(self.choice([', ', '', '-']))})",
                lambda: f"({t()} if {self.bool(depth + 1)} else {t()})", lambda: f"{self.quoted(self.choice(FORMATS))} % {self.choice([self.int, self.float, self.text])(depth + 1)}",
                lambda: f"{self.quoted(self.choice(SPECS))}.format({self.choice([self.int, self.float, self.text])(depth + 1)})", lambda: f"{self.any(depth + 1)} | string", lambda: f"({t()} * {self.randint(-1, 3)})",
                lambda: f"('%s-%s' % ({self.any(depth + 1)}, {t()}))", lambda: f"({t()}).join({self.list(depth + 1)} | map('string'))", lambda: f"{self.list(depth + 1)} | map(attribute='name') | join(',')"]
        return self.choice(leaf + more * 2)()

    def int(self, depth: int) -> str:
        leaf = [lambda: str(self.choice(INTS[:12])), lambda: "n", lambda: str(self.choice(BIG_INTS)), lambda: self.choice(["0x1F", "0b101", "0o17", "1_000"])]
        if depth >= DEPTH_MAX:
            return self.choice(leaf)()
        i = lambda: self.int(depth + 1)
        more = [lambda: f"({i()} {self.choice(['+', '-', '*', '//', '%'])} {i()})", lambda: f"{self.any(depth + 1)} | length", lambda: f"({self.text(depth + 1)}).{self.choice(TEXT_NUMBERS)}",
                lambda: f"{self.text(depth + 1)} | int", lambda: f"{self.float(depth + 1)} | int", lambda: f"{i()} | abs", lambda: f"({i()} ** {self.randint(0, 5)})", lambda: f"-{i()}",
                lambda: "numbers | sum", lambda: "people | sum(attribute='age')", lambda: f"{self.text(depth + 1)} | wordcount", lambda: f"{self.text(depth + 1)} | int({self.randint(0, 3)}, 16)",
                lambda: f"{i()} | round", lambda: f"{self.list(depth + 1)} | {self.choice(['min', 'max', 'first', 'last'])}"]
        return self.choice(leaf + more)()

    def float(self, depth: int) -> str:
        leaf = [lambda: repr(self.choice(FLOATS)), lambda: "x"]
        if depth >= DEPTH_MAX:
            return self.choice(leaf)()
        f = lambda: self.float(depth + 1)
        more = [lambda: f"({f()} {self.choice(['+', '-', '*', '/', '//', '%'])} {self.choice([self.int, self.float])(depth + 1)})", lambda: f"({self.int(depth + 1)} / {self.int(depth + 1)})",
                lambda: f"{f()} | round({self.randint(-2, 4)}{self.choice(['', '', ', ' + repr(self.choice(['common', 'ceil', 'floor']))])})", lambda: f"{self.text(depth + 1)} | float", lambda: f"{f()} | abs"]
        return self.choice(leaf + more)()

    def list(self, depth: int) -> str:
        leaf = [lambda: "words", lambda: "numbers", lambda: "mixed", lambda: "[]", lambda: "people", lambda: "(1, 'a')", lambda: "d", lambda: "d.keys() | list", lambda: "d.values() | list"]
        if depth >= DEPTH_MAX:
            return self.choice(leaf)()
        a = lambda: self.any(depth + 1)
        more = [lambda: f"[{a()}, {a()}]", lambda: f"range({self.randint(-1, 4)}, {self.randint(0, 9)}, {self.choice([1, 2, -1])}) | list", lambda: f"({self.text(depth + 1)}).{self.choice(TEXT_LISTS)}",
                lambda: f"{self.list(depth + 1)} | {self.choice(LIST_FILTERS)}", lambda: f"({self.list(depth + 1)})[{self.slice(depth)}]", lambda: f"({self.list(depth + 1)} + [{a()}])", lambda: "d | dictsort",
                lambda: "d | dictsort(true, 'value', reverse=true)", lambda: "people | sort(attribute='age,name')", lambda: "people | groupby('age') | list", lambda: "people | map(attribute='name') | list",
                lambda: "people | selectattr('age', 'gt', 1) | list", lambda: "people | rejectattr('name', 'in', ['Ann']) | map(attribute='age') | list", lambda: "people | unique(attribute='age') | list",
                lambda: "messages | map(attribute='content') | list", lambda: "messages | selectattr('tool_calls', 'defined') | list", lambda: f"{self.text(depth + 1)} | list", lambda: "d.items() | list",
                lambda: "people | map(attribute='zip', default='?') | list", lambda: "people | groupby('name', case_sensitive=true) | map('first') | list"]
        return self.choice(leaf + more)()

    def dict(self, depth: int) -> str:
        leaf = [lambda: "d", lambda: "{}", lambda: "people[0]", lambda: "messages[0]"]
        if depth >= DEPTH_MAX:
            return self.choice(leaf)()
        return self.choice([*leaf, lambda: f"{{'a': {self.any(depth + 1)}, {self.choice(['1', 'true', repr('b'), '1.0', 'none', '(1, 2)'])}: {self.any(depth + 1)}}}", lambda: f"dict(d, k={self.any(depth + 1)})"])()

    def bool(self, depth: int) -> str:
        leaf = [lambda: "flag", lambda: self.choice(["true", "false", "True", "False"]), lambda: "tools", lambda: "add"]
        if depth >= DEPTH_MAX:
            return self.choice(leaf)()
        a = lambda: self.any(depth + 1)
        more = [lambda: f"{a()} is {self.choice(['', '', 'not '])}{self.choice(VALUE_TESTS)}", lambda: f"{self.int(depth + 1)} {self.choice(['<', '<=', '>', '>=', '==', '!='])} {self.float(depth + 1)}",
                lambda: f"{self.text(depth + 1)} {self.choice(['<', '==', '!=', 'in', 'not in', '>='])} {self.text(depth + 1)}", lambda: f"not {a()}", lambda: f"({a()} and {a()})", lambda: f"({a()} or {a()})",
                lambda: f"{a()} {self.choice(['in', 'not in'])} {self.list(depth + 1)}", lambda: f"({self.text(depth + 1)}).{self.choice(TEXT_TESTS)}", lambda: f"{self.list(depth + 1)} {self.choice(['==', '!=', '<'])} {self.list(depth + 1)}"]
        return self.choice(leaf + more * 2)()

    def slice(self, depth: int) -> str:
        bound = lambda: self.choice(["", "0", "1", "2", "-1", "-2", "9", "-9", "none"])
        return self.choice([f"{bound()}:{bound()}", f"{bound()}:{bound()}:{self.choice(['', '1', '2', '-1', '-2'])}"])

    def quoted(self, text: str) -> str:
        """A literal of a text, with or without escapes."""
        quote = self.choice("'\"")
        plain = text.replace("\\", "\\\\").replace(quote, "\\" + quote)
        if self.random() < 0.5:
            plain = plain.replace("\n", "\\n").replace("\t", "\\t").replace("é", "\\u00e9").replace("a", "\\x61")
        return quote + plain + quote
