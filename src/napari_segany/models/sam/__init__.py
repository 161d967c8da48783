"""The Segment Anything family: SAM (ViT-B/L/H) and MobileSAM (TinyViT)."""
