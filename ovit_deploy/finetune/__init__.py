"""The stage that trains: a recipe's timeline, carried out on a model."""
