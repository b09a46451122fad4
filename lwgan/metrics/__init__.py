"""How good samples are: networks that see pictures, and figures made of what they see."""
