"""How raw words become values: detector types, constants, darks, common modes, and reasons for distrust."""
