"""Published backbones with spatial slots that any operator can fill, and the rules by which papers count them."""
