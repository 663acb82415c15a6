//! A row and the templates make a letter. Strict: undefined is an error, null never prints.
