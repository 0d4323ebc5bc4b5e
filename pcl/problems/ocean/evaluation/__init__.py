"""Fields given drifters: the learned posterior beside climatology, analogs and optimal interpolation."""
