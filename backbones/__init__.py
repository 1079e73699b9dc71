"""Backbones: sensors in, tokens and bird's-eye-view maps out. Importing this package registers them."""

from beyonddrive.backbones import bev_tokenizer, pillars, query_decoder, resnet, transfuser

__all__ = ["bev_tokenizer", "pillars", "query_decoder", "resnet", "transfuser"]
