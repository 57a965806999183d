"""Every file in modalities/recognisers/: finds its kind in all spellings, leaves look-alikes alone, in linear time."""

import dataclasses
import random
import re
import time

import pytest

from topwork import plugins
from topwork.modalities.redaction import NEEDY, Redaction, Span, kinds, resolved
from topwork.modalities.text_folding import fold

NAMES = [name for name in plugins.names("modalities.recognisers") if name not in NEEDY]
FINDS = {  # a text, with <> around what is to be found: a new recogniser adds its own here
    "card": [
        "pay with <4111111111111111> now",
        "<4111 1111 1111 1111>, thanks",
        "Amex <3782 822463 10005>",
        "<5555-5555-5555-4444>.",
        "银联卡号<6222020000000000000>谢谢",
        "＜ <４１１１　１１１１　１１１１　１１１１>",
        "<4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1>",
        "<41\u200b11\u200b11\u200b1111\u200d111111>",
        "1111 <4111 1111 1111 1111>",
        "<2221000000000009>",
        "<30569309025904>",
        "<3566002020360505>",
        "<٤١١١١١١١١١١١١١١١>",
    ],
    "chinese_id": [
        "身份证<11010519491231002X>。",
        "ID <440524188001010014>",
        "<110105 19491231 002x>",
        "<１１０１０５１９４９１２３１００２Ｘ>",
    ],
    "credentials": [
        "postgresql://<anna:geheim>@db.example.org/shop",
        "https://h/x?id=3&access_token=<abc-DEF_123>&y=1",
        "key <AKIAIOSFODNN7EXAMPLE>",
        "<ghp_0123456789abcdefghijABCDEFGHIJ012345>",
        "see https://h/?sig=<a%2Fb%3D>",
        "redis://<:topsecret>@cache:6379",
        "<-----BEGIN RSA PRIVATE KEY-----\nMIIEow+/=\n-----END RSA PRIVATE KEY----->",
    ],
    "email": [
        "Write to <anna.b+news@mail.example.org>!",
        "<ANNA@EXAMPLE.DE>,<o'neil@x.ie>",
        "邮箱<zhang_san@qq.com>谢谢",
        "<müller@straße.example>",
        "mailto:<a@b.co>",
        "<ａｎｎａ＠ｅｘａｍｐｌｅ．ｃｏｍ>",
        "<anna (at) example (dot) org>",
        "<anna[at]example.org>",
        "<an\u200bna@exam\u00adple.org>",
        "<张三@例子.中国>",
        "(<x@y.museum>)",
        "<anna@example.org>.jpg",
    ],
    "iban": [
        "IBAN <DE89 3704 0044 0532 0130 00>.",
        "<GB82WEST12345698765432>",
        "<FR14 2004 1010 0505 0001 3M02 606>",
        "<de89370400440532013000>",
        "<NL91-ABNA-0417-1643-00>",
        "<ＤＥ89　3704 0044 0532 0130 00>",
    ],
    "ip_address": [
        "ping <192.168.0.1>",
        "from <8.8.8.8>:53",
        "http://<10.0.0.7>/x",
        "<2001:db8::ff00:42:8329>",
        "<::1> and <fe80::1ff:fe23:4567:890a%eth0>",
        "<::ffff:192.0.2.128>",
        "<2001:0db8:0000:0000:0000:ff00:0042:8329>.",
        "请看<2001:db8::1>谢谢",
        "<１９２.１６８.０.１>",
    ],
    "mac_address": ["<00:1A:2b:3C:4d:5E>", "card <00-1a-2b-3c-4d-5e>", "<001a.2b3c.4d5e>", "<02:00:00:ff:fe:00:00:01>"],
    "phone": [
        "call <+49 (0)30 123456-78>",
        "<+1 415 555 2671> 2 items",
        "<+86 138 0013 8000>",
        "<0086 13800138000>",
        "<+44 20 7946 0958>, ok",
        "<+33 1 23 45 67 89>",
        "<+39 06 1234 5678>",
        "<+351912345678>",
        "(<(415) 555-2671>)",
        "<415-555-2671>",
        "<415.555.2671>",
        "<1-800-555-0199>",
        "<020 7946 0958>",
        "<07700 900123>",
        "<07700900123>",
        "<030/1234567>",
        "<089 / 12 34 56-78>",
        "<0170 1234567>",
        "<015112345678>",
        "<01 23 45 67 89>",
        "<01.23.45.67.89>",
        "<06-12345678>",
        "<0612345678>",
        "<612 34 56 78>",
        "手机<13800138000>谢谢",
        "<138 0013 8000>",
        "<138-0013-8000>",
        "<010-12345678>",
        "电话：<87654321>",
        "tel: <4155552671>",
        "Tel. <912 345 678>",
        "<＋８６ １３８\u200b００１３\u200b８０００>",
        "<139\u20110013\u20118000>",
        "<١٣٨٠٠١٣٨٠٠٠>",
    ],
    "uk_nino": ["NI <AB 12 34 56 C>", "<ab123456d>", "<JG-10-37-59-A>", "<JG 103759 A>"],
    "spanish_id": [
        "DNI <12345678Z>",
        "<12345678-Z>.",
        "<12345678z>",
        "NIE <X1234567L>",
        "<X-1234567-L>",
        "<12.345.678-Z>",
    ],
    "french_nir": ["NIR <184127645108946>", "<1 84 12 76 451 089 46>", "née <185032A00405691>."],
    "us_ssn": ["my ssn is <078-05-1120>", "SSN: <078051120>", "social security number <219 09 9999>"],
}
LEAVES = {
    "card": [
        "4111111111111112",
        "order 1234567812345678",
        "0000 0000 0000 0000",
        "ISBN 9783161484100",
        "EAN 4006381333931",
        "IMEI 490154203237518",
        "1700000000000000",
        "$4,111,111,111,111,111",
        "4111 1111 1111 11115",
        "x4111111111111111",
        "4111111111111111.5",
        "550e8400-e29b-41d4-a716-446655440000",
        "4111 1111 1111",
        "2024 2024 2024 2024",
    ],
    "chinese_id": [
        "110105194912310021",
        "110105194902300021",
        "990105194912310025",
        "11010519491231002X1",
        "order 110105-1949",
    ],
    "credentials": [
        "https://example.org/a:b@c",
        "https://example.org/?id=3&page=tokens",
        "key=value",
        "a://b",
        "the code=... is",
        "skip-connection",
    ],
    "email": [
        "icon@2x.png",
        "react@18.2.0",
        "git@github.com:org/repo",
        "meet @ noon",
        "@anna",
        "a@b",
        "3@home",
        "x @ y.z",
        "user@",
        "@example.org",
        "f(at)1",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 01",
        "GB00WEST12345698765432",
        "DE89 3704",
        "AB12 3456 7890 1234 5678",
        "xDE89370400440532013000",
    ],
    "ip_address": [
        "version 1.2.3.4",
        "v1.2.3.4",
        "Chrome/120.0.0.0",
        "1.2.3",
        "256.1.1.1",
        "1.2.3.4.5",
        "see section 1.2.3.4",
        "std::vector",
        "a::b",
        "12:30:45",
        "::",
        "released 10.0.19041.1",
        "10.05.2024",
        "the firmware was 1.0.5.0, so 1.0.5.0 it is",
        "it is 12:30::",
        "0.0.0.0",
        "mainapp-1.2.3.4-x64",
    ],
    "mac_address": [
        "12:30:45",
        "2024-01-02-03-04-05",
        "01-02-03-04-05-06",
        "1234.5678.9012",
        "00:1A:2b:3C:4d",
        "deadbeef",
        "x00:1A:2b:3C:4d:5E",
    ],
    "phone": [
        "2024-01-02 12:30",
        "01.02.2023 12:30",
        "01-02-2023",
        "01/02/2023 1000",
        "1.234.567,89",
        "$1,234,567.89",
        "ISBN 978-3-16-148410-0",
        "0-306-40615-2",
        "order 0123-456-789",
        "Rechnung Nr. 0171 1234567",
        "3.14159265358979",
        "+20 000 000",
        "1,000,000,000",
        "10.0.19041.1",
        "192.168.100.200",
        "4111 1111 1111 1111",
        "1234567890",
        "13800138000.00",
        "订单号13800138000",
        "+1.234.567,89",
        "€ 0,123456789",
        "2024/11/21 18:45:00",
        "order 0046834591853797",
        "2271fc0e-0204-9876-9789-43fd0ca52b16",
        "1700000000",
        "1700000000000",
        "x13800138000",
        "12800138000",
        "ticket #415-555-2671",
        "0.123456789",
        "978-0-306-40615-7",
        "page 12 of 1234",
        "550e8400-e29b-41d4-a716-446655440000",
        "1-2-3-4-5-6-7-8-9",
        "2147483647",
        "18:00-20:00",
        "invoice no. 020 7946 0958",
        "+123456",
    ],
    "uk_nino": ["GB 12 34 56 C", "DA123456C", "AB123456E", "AB1234567", "AO123456A", "xAB123456C", "AB 12 345 6C"],
    "spanish_id": ["12345678A", "1234567Z", "123456789Z", "A12345678Z", "12345678", "12.345,678-Z", "12345678ZZ"],
    "french_nir": [
        "184127645108947",
        "1184127645108946",
        "384127645108946",
        "1 84 13 76 451 089 46 12",
        "1841276451089460",
    ],
    "us_ssn": [
        "000-12-3456",
        "666-12-3456",
        "912-12-3456",
        "123-00-4567",
        "123-45-0000",
        "123-45-67890",
        "2024-05-1120",
        "078051120",
        "123 45 6789",
        "order-123-45-6789-1",
    ],
}
LETTERS = (
    "1",
    "4111 ",
    "4 ",
    "a@",
    "@a-",
    "a@b.c",
    "+49 ",
    "01 ",
    "0044 ",
    "(",
    ":",
    "aa:bb:",
    "255.",
    "DE89 ",
    "://a:",
    "&token=",
    "eyJaaaaaaaaaaaa.",
    "-----BEGIN PRIVATE KEY-----",
    "４ ",
    "4\u200b",
    "AB 12 ",
    "110105 1949",
    " (at) ",
    "tel 1234567 ",
    "order ",
    "[EMAIL]",
    "415-555-",
    "例@",
    "ssn ",
    "sk-a",
    " ",
)


@pytest.fixture(scope="module")
def finders():
    return {name: plugins.make("modalities.recognisers", name) for name in NAMES}


def test_every_kind_has_examples():
    assert set(FINDS) == set(LEAVES) == set(NAMES) == set(kinds())


@pytest.mark.parametrize("name", NAMES)
def test_contract(name):
    kind = plugins.find("modalities.recognisers", name)
    assert dataclasses.is_dataclass(kind)
    assert kind.__dataclass_params__.frozen
    assert kind.rank in (0, 1, 2)


@pytest.mark.parametrize(("name", "marked"), [(name, text) for name, texts in FINDS.items() for text in texts])
def test_finds(name, marked):
    wanted, plain = [], ""
    for at, part in enumerate(re.split("[<>]", marked)):
        if at % 2:
            wanted.append((len(plain), len(plain) + len(part)))
        plain += part
    found = [(s.start, s.end) for s in Redaction.of([name]).spans(plain)]
    assert found == wanted, (plain, [plain[a:b] for a, b in found])


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in LEAVES.items() for text in texts])
def test_leaves_alone(name, text):
    found = Redaction.of([name]).spans(text)
    assert not found, [text[s.start : s.end] for s in found]


@pytest.mark.parametrize("name", NAMES)
def test_equal_ones_have_one_spelling(name, finders):
    same = {
        "card": ("4111 1111 1111 1111", "4111-1111-1111-1111"),
        "chinese_id": ("110105 19491231 002x", "11010519491231002X"),
        "credentials": ("a:b", "a:b"),
        "email": ("Anna (at) Example [dot] org", "anna@example.ORG"),
        "iban": ("de89 3704", "DE893704"),
        "ip_address": ("2001:0db8:0::1", "2001:db8::1"),
        "mac_address": ("00-1A-2b-3c-4d-5e", "00:1a:2b:3c:4d:5e"),
        "phone": ("+49 (0)30 1234567", "0049 30/1234567"),
        "uk_nino": ("ab 12 34 56 c", "AB123456C"),
        "us_ssn": ("078-05-1120", "078051120"),
        "spanish_id": ("12.345.678-z", "12345678Z"),
        "french_nir": ("1 84 12 76 451 089 46", "184127645108946"),
    }
    one, other = same[name]
    assert finders[name].canonical(one) == finders[name].canonical(other)


def test_numbers_of_one_phone():
    canonical = plugins.make("modalities.recognisers", "phone").canonical
    assert {canonical(x) for x in ("13800138000", "+86 138 0013 8000", "0086-13800138000", "86 13800138000")} == {
        "+8613800138000"
    }
    assert {canonical(x) for x in ("(415) 555-2671", "+1 415 555 2671", "1-415-555-2671")} == {"+14155552671"}


def test_checksums_decide():
    """Of random numbers with the right prefix and length a tenth passes Luhn, an eleventh and a 97th the others."""
    rng = random.Random(0)
    cards = [f"4{rng.randrange(10**15):015d}" for _ in range(3000)]
    assert 0.08 < sum(bool(Redaction.of("card").spans(x)) for x in cards) / 3000 < 0.12
    days = [f"{rng.randrange(1950, 2000)}{rng.randrange(1, 13):02d}{rng.randrange(1, 29):02d}" for _ in range(3000)]
    ids = [f"110105{day}{rng.randrange(10**4):04d}" for day in days]
    assert 0.07 < sum(bool(Redaction.of("chinese_id").spans(x)) for x in ids) / 3000 < 0.11
    ibans = [f"DE{rng.randrange(10**20):020d}" for _ in range(6000)]
    assert 0.005 < sum(bool(Redaction.of("iban").spans(x)) for x in ibans) / 6000 < 0.017


def seconds(finder, text):
    """Of the processor; the best of a few, because others use it, too."""
    best = 9.0
    for _ in range(5):
        start = time.process_time()
        list(finder.find(text))
        best = min(best, time.process_time() - start)
        if best < 0.05:
            break
    return best


@pytest.mark.parametrize("name", NAMES)
def test_hostile_texts_take_a_tenth_of_a_second(name, finders):
    for letters in LETTERS:
        folded, _ = fold((letters * (100_000 // len(letters) + 1))[:100_000])
        assert seconds(finders[name], folded) < 0.1, letters


@pytest.mark.parametrize("name", NAMES)
def test_random_texts_never_break_it(name, finders):
    """Stretches are in order of nothing, but inside the text, not empty, and found alike in a longer text."""
    rng = random.Random(1)
    letters = "0123456789 +-.()/:@abAB[]例\u200b４٤&=?%_#"
    for _ in range(300):
        text, _ = fold("".join(rng.choices(letters, k=rng.randrange(60))))
        for start, end in finders[name].find(text):
            assert 0 <= start < end <= len(text)
        again = {text[a:b] for a, b in finders[name].find(text)}
        inside = f"\n\n{text}\n\n"
        assert again == {inside[a:b] for a, b in finders[name].find(inside)}


def test_of_overlapping_ones_the_surest_names_all():
    ranks = {"a": 0, "b": 2}
    assert resolved([Span(0, 9, "b"), Span(4, 12, "a"), Span(12, 14, "b")], ranks) == [
        Span(0, 12, "a"),
        Span(12, 14, "b"),
    ]
    assert resolved([Span(4, 6, "b"), Span(0, 9, "b")], ranks) == [Span(0, 9, "b")]
