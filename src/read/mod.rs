//! Reading mail as a person does: the MIME tree, decoded.
