"""Library of conversations: every conversation of a model, on disk, known by hashes of its prefix.

`chain` makes the hashes, `index` finds the stored conversation with the longest common prefix, and
`table` chooses the slot of a request; they are pure. `ConversationStore` holds the files, and
`Library` acts: it saves what a slot is about to lose and restores what a request needs.
"""
