"""The path of a request as the routes know it, whatever proxies and clients have made of it."""

from __future__ import annotations


def route_path(path: str, root_path: str = "") -> str:
    """Return the path without the prefix `root_path`, repeated slashes and a slash at its end.

    A proxy that serves Tympan under a prefix may remove it or not.
    """
    path = "/" + "/".join(part for part in path.split("/") if part)
    if root_path and (path == root_path or path.startswith(root_path + "/")):
        return path[len(root_path) :] or "/"
    return path
