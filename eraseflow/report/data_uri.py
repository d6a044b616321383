"""Files inside the page."""

import base64


def data_uri(data: bytes, kind: str) -> str:
    """The address of a file of this MIME type that stands in the page itself."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
