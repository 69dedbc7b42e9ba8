"""Classification losses for long-tailed data, one file per paper."""
