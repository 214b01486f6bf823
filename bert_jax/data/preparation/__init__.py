"""A large corpus as token ids, prepared in parts: `bert-jax prepare`.

Every stage is a pure function of the files in the folder of the store, so any engine may run it, in any order:

    manifest.json       the inputs, cut into parts, and every setting that decides a token
    words/part-00017/   words and hashes of a part's documents, if a vocabulary is trained or duplicates are dropped
    tokenizer/          the given tokenizer, or the one that is trained on the words of all parts
    duplicates/         the documents that repeat an earlier one
    part-00017/         the tokens of a part: train/ and held_out/, each a token store
    train/ held_out/    the offsets of all parts: what `TokenStore.open` reads
    store.json          written last

A folder of these is complete or absent, and holds hashes of its files. The same bytes come from any engine, any number
of workers, any order and any restart.
"""
