"""Backbones: sensors in, tokens and bird's-eye-view maps out. Importing this package registers them."""

from beyonddrive.backbones import query_decoder, resnet, transfuser

__all__ = ["query_decoder", "resnet", "transfuser"]
