"""Reads messages with Python's `email` package and prints, as JSON, what `show --json` should say."""

import email
import email.header
import email.utils
import json
import sys


def decoded(value):
    if value is None:
        return None
    parts = []
    for text, charset in email.header.decode_header(str(value).replace("\r", "").replace("\n", "")):
        if isinstance(text, str):
            parts.append(text)
            continue
        charset = {"gb2312": "gb18030", "gbk": "gb18030", None: "ascii"}.get(charset, charset)
        parts.append(text.decode(charset, "replace"))
    return "".join(parts).strip()


def tree(part):
    node = {"type": part.get_content_type()}
    if part.is_multipart():
        node["parts"] = [tree(inner) for inner in part.get_payload()]
    elif part.get_content_maintype() == "text":
        charset = part.get_content_charset() or "ascii"
        charset = {"gb2312": "gb18030", "gbk": "gb18030"}.get(charset, charset)
        node["text"] = part.get_payload(decode=True).decode(charset, "replace").replace("\r\n", "\n").rstrip("\n")
    if part.get_filename():
        name = part.get_filename()
        node["name"] = decoded(name) if "=?" in name else name
    return node


for path in sys.argv[1:]:
    with open(path, "rb") as file:
        message = email.message_from_bytes(file.read())
    people = [
        {"name": decoded(name), "address": address}
        for name, address in email.utils.getaddresses([str(v) for v in message.get_all("From", [])])
    ]
    print(json.dumps({"from": people, "subject": decoded(message["Subject"]), "tree": tree(message)}))
