#!/usr/bin/env python3
"""Writes the packages that apt knows as documents, a line of JSON each: the input of manifests/search.yaml.

    apt-get update
    manifests/packages.py | ctl index import packages -
"""
import json
import subprocess

packages = {}
for record in subprocess.run(["apt-cache", "dumpavail"], stdout=subprocess.PIPE, check=True).stdout.split(b"\n\n"):
    # Lines that begin with a space continue the field before them; no field here needs them.
    lines = record.decode(errors="replace").splitlines()
    fields = dict(line.split(": ", 1) for line in lines if ": " in line and not line.startswith(" "))
    if name := fields.get("Package"):
        document = {"name": name, "words": name, "description": fields.get("Description", "")}
        for field in ["Version", "Section", "Priority", "Maintainer", "Homepage"]:
            document |= {field.lower(): fields[field]} if field in fields else {}
        document |= {"installed_size": int(fields["Installed-Size"])} if "Installed-Size" in fields else {}
        packages[name] = document  # of several versions, the last one
for document in packages.values():
    print(json.dumps(document, ensure_ascii=False))
