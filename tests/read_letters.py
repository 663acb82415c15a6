"""Reads the letters of a sample with Python's email package and compares them with the sample's
own sources: lines, defects, addresses, subjects, trees, and the bytes of every file.

usage: read_letters.py SAMPLE OUTBOX        (from the repository, or anywhere: paths are its own)
"""

import csv
import email
import email.policy
import glob
import hashlib
import html
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def rows(name):
    with open(os.path.join(ROOT, "data", name), encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def files(*patterns):
    found = []
    for pattern in patterns:
        found += sorted(glob.glob(os.path.join(ROOT, pattern)))
    assert found, patterns
    return found


def newsletter():
    left = {line.strip() for line in open(os.path.join(ROOT, "data/unsubscribed.txt"), encoding="utf-8")}
    for row in rows("subscribers.csv"):
        if row["active"] == "yes" and row["email"] not in left:
            yield {
                "to": (row["name"], row["email"]),
                "subject": f"{row['name']}, your November digest",
                "tree": "multipart/mixed(multipart/alternative(text/plain,multipart/related(text/html,image/png)),application/pdf)",
                "words": [row["name"], "6 min"] + (["€"] if float(row["balance"]) > 0 and row["plan"] != "free" else []),
                "names": {"Terms 2026.pdf": files("data/terms.pdf")[0]},
                "inline": files("images/logo.png"),
                "headers": {"List-Unsubscribe-Post": "List-Unsubscribe=One-Click"},
            }


def 通知():
    for row in rows("员工.csv"):
        names = {f"{row['部门']}-放假安排.pdf": files(f"data/通知/{row['部门']}-放假安排.pdf")[0]}
        kinds = "application/pdf"
        if row["值班"] == "是":
            names[f"国庆节值班表（{row['姓名']}）.xlsx"] = files("data/通知/值班表.xlsx")[0]
            kinds += ",application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
        yield {
            "to": (row["姓名"], row["邮箱"]),
            "subject": f"{row['姓名']}，{row['部门']}国庆节放假安排",
            "tree": f"multipart/mixed(multipart/alternative(text/plain,multipart/related(text/html,image/png)),{kinds})",
            "words": [row["姓名"], row["工号"], "八天"],
            "names": names,
            "inline": files("images/logo.png"),
            "headers": {},
        }


def monthly_report():
    for row in rows("customers.csv"):
        folder = f"data/reports/{row['id']}"
        names = {os.path.basename(path): path for path in files(f"{folder}/*.xlsx", f"{folder}/report-*.pdf")}
        names[f"{row['company']} October 2026.jpg"] = files(f"{folder}/chart.jpg")[0]
        kinds = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet,application/pdf,image/jpeg"
        if row["voice"] == "yes":
            names["note.mp3"] = files(f"{folder}/note.mp3")[0]
            kinds += ",audio/mpeg"
        yield {
            "to": (row["contact"], row["email"]),
            "subject": f"Report October 2026 for {row['company']}",
            "tree": f"multipart/mixed(multipart/alternative(text/plain,multipart/related(text/html,image/png)),{kinds})",
            "words": [row["company"], row["orders"]],
            "names": names,
            "inline": files("images/logo.png"),
            "headers": {"Cc": row["manager"]} if row["manager"] else {},
        }


def digest(data):
    return hashlib.sha256(data).hexdigest()


def digest_of(path):
    with open(path, "rb") as file:
        return digest(file.read())


def tree(part):
    if part.is_multipart():
        return f"{part.get_content_type()}({','.join(tree(child) for child in part.iter_parts())})"
    return part.get_content_type()


def meant(name, defect):
    """The one defect that is there on purpose: besides RFC 2231's filename*, Content-Type says the
    name once more as an encoded word in quotes, for the clients that know no better."""
    return name.lower() == "content-type" and "encoded" in str(defect)


def check(path, expected):
    raw = open(path, "rb").read()
    assert b"\n" not in raw.replace(b"\r\n", b""), "a bare LF"
    assert b"\r" not in raw.replace(b"\r\n", b""), "a bare CR"
    longest = max(len(line) for line in raw.split(b"\r\n"))
    assert longest <= 998, f"a line of {longest}"
    message = email.message_from_bytes(raw, policy=email.policy.default)
    for part in message.walk():
        assert not part.defects, part.defects
        for name, value in part.items():
            assert all(meant(name, defect) for defect in getattr(value, "defects", ())), (name, value.defects)
    (to,) = message["To"].addresses
    name, address = expected["to"]
    local, domain = address.rsplit("@", 1)
    domain = domain.encode("idna").decode() if not domain.isascii() else domain
    assert to.display_name == name, (to.display_name, name)
    assert (to.username, to.domain) in ((local, domain), (local, address.rsplit("@", 1)[1])), to
    assert message["Subject"] == expected["subject"], message["Subject"]
    assert message["Date"].datetime is not None
    assert message["Message-ID"].endswith("@example.com>") or message["Message-ID"].endswith("@example.cn>")
    for header, value in expected["headers"].items():
        assert str(message[header]) == value, (header, message[header])
    assert tree(message) == expected["tree"], tree(message)
    for kind in ("plain", "html"):
        text = message.get_body(preferencelist=(kind,)).get_content()
        for word in expected["words"]:
            assert word in (html.unescape(text) if kind == "html" else text), (kind, word, text)
        assert "{{" not in text and "{%" not in text, text
    got = {part.get_filename(): digest(part.get_content()) for part in message.iter_attachments()}
    want = {name: digest_of(path) for name, path in expected["names"].items()}
    assert got == want, (got, want)
    inline = [part for part in message.walk() if part.get_content_maintype() == "image" and part["Content-ID"]]
    assert [digest(part.get_content()) for part in inline] == [digest_of(path) for path in expected["inline"]]
    source = message.get_body(preferencelist=("html",)).get_content()
    for part in inline:
        assert f"cid:{part['Content-ID'].strip('<>')}" in source, part["Content-ID"]


def main():
    sample, outbox = sys.argv[1:]
    wanted = {row["to"][1]: row for row in globals()[sample.replace("-", "_")]()}
    paths = sorted(glob.glob(os.path.join(outbox, "**", "*.eml"), recursive=True))
    for path in paths:
        message = email.message_from_binary_file(open(path, "rb"), policy=email.policy.default)
        address = message["To"].addresses[0].addr_spec
        if address not in wanted:
            local, domain = address.rsplit("@", 1)
            address = f"{local}@{domain.encode().decode('idna')}"
        try:
            check(path, wanted.pop(address))
        except AssertionError as error:
            sys.exit(f"{path}: {error!r}")
    assert not wanted, f"no letter for {sorted(wanted)}"
    print(f"{len(paths)} letters")


main()
