"""The real workflows in virtual time over a virtual data centre; one seed decides everything."""
