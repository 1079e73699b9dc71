"""Backbones: sensors in, tokens and bird's-eye-view maps out. Importing this package registers them."""

from beyonddrive.backbones import pillars, query_decoder, resnet, transfuser

__all__ = ["pillars", "query_decoder", "resnet", "transfuser"]
