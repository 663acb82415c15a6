"""Reads letters with Python's email package and prints, as JSON, what a mail reader sees of each.

usage: read.py FILE.eml…
"""

import email
import email.header
import email.policy
import email.utils
import hashlib
import json
import sys

# The name of a file stands encoded within the quotes of `name=`, for clients that read nothing else
# (Outlook, QQ Mail). Python notes it, as it should, and reads RFC 2231 from the disposition.
ON_PURPOSE = ["encoded word inside quoted string", "missing trailing whitespace after encoded-word"]


def part(message, defects):
    defects += [f"{message.get_content_type()}: {defect!r}" for defect in message.defects]
    for name, value in message.items():
        for defect in value.defects:
            if not (name.lower() == "content-type" and any(words in str(defect) for words in ON_PURPOSE)):
                defects.append(f"{name}: {defect!r}")
    if message.get_content_type() == "message/rfc822":
        inner = message.get_payload(0)
        return {"type": "message/rfc822", "name": message.get_filename(), "subject": inner["Subject"]}
    if message.is_multipart():
        return {"type": message.get_content_type(), "parts": [part(each, defects) for each in message.iter_parts()]}
    content = message.get_payload(decode=True)
    return {
        "type": message.get_content_type(),
        "name": message.get_filename(),
        "disposition": message.get_content_disposition(),
        "cid": message["Content-ID"],
        "sha256": hashlib.sha256(content).hexdigest(),
        "text": content.decode(message.get_content_charset("ascii")) if message.get_content_maintype() == "text" else None,
    }


def addresses(message, name, defects):
    """Names and addresses of a field. Python shows a space between two encoded words of a name, which
    RFC 2047 §6.2 has readers drop (it does for a subject), so its older decoder reads names, and the
    newer one must agree but for spaces."""
    if message[name] is None:
        return []
    raw = next(value for key, value in message.raw_items() if key.lower() == name.lower())
    unfolded = str(raw).replace("\r", "").replace("\n", "")
    found = []
    for encoded, address in email.utils.getaddresses([unfolded]):
        found.append([str(email.header.make_header(email.header.decode_header(encoded))), address])
    for (display, spec), other in zip(found, message[name].addresses, strict=True):
        if spec != other.addr_spec or display.replace(" ", "") != other.display_name.replace(" ", ""):
            defects.append(f"{name}: {display!r} <{spec}> is also {other!r}")
        elif raw.count("=?") == 1 and display != other.display_name:
            defects.append(f"{name}: {display!r} is also {other.display_name!r}")
    return found


def letter(path):
    with open(path, "rb") as file:
        raw = file.read()
    message = email.message_from_bytes(raw, policy=email.policy.default)
    defects = []
    tree = part(message, defects)
    lines = raw.split(b"\r\n")
    if lines.pop() != b"":
        defects.append("the last line has no end")
    if any(b"\r" in line or b"\n" in line for line in lines):
        defects.append("a bare CR or LF")
    if any(len(line) > 998 for line in lines):
        defects.append("a line above 998")
    if any(line.startswith(b".") for line in lines):
        defects.append("a line begins with a dot")
    return {
        "tree": tree,
        "defects": defects,
        "longest": max(len(line) for line in lines),
        "subject": message["Subject"],
        "from": addresses(message, "From", defects),
        "to": addresses(message, "To", defects),
        "cc": addresses(message, "Cc", defects),
        "headers": {name: str(value) for name, value in message.items()},
    }


json.dump([letter(path) for path in sys.argv[1:]], sys.stdout)
