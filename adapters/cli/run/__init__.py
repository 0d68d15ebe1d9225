"""`swapchart run`: serves one model without a configuration, and chats with it."""
