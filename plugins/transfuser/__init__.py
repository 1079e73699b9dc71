"""TransFuser and LTF: see README.md."""
