// Package strict reads YAML files into Go structs and names everything that is wrong with them, all at once, each with
// its place, what was wanted, what was seen, and what to try:
//
//	scenario.yaml:12:3: break: unknown verb "aply"
//	  wanted  apply, block-port, patch or restart
//	  try     did you mean apply?
//
// No library does this, and people who write such files by hand spend most of their time with these messages. The
// package knows nothing of what the files are about. A Format says what a kind of file is called, which kinds of names
// it has, and which types have a notation of their own. A Reader reads one file; Format.Schema describes the same
// structs as a JSON Schema, and Format.Check finds structs that no file can hold.
//
// # Plain YAML only
//
// A file is one document of at most MaxSize bytes. What stands there is what is meant: anchors, aliases, tags, merge keys
// and fields that stand there twice are refused. A number is no text, a text is no number, and "yes" is no boolean.
//
// # Structs
//
// A field of a struct may be a string, a boolean, a number, a Duration, a time.Duration, a Percent, a *regexp.Regexp,
// anything that reads itself from text (encoding.TextUnmarshaler), a struct of such fields, a slice or a map with string
// keys of any of these, `any` for free YAML, or a pointer to any of these, which stays nil if the file leaves the field
// out. A slice type that has a name, such as List, also takes one item without brackets. A field of type Place with the tag `yaml:"-"`
// gets the place of its struct. Fields of a struct that is embedded without a tag count as the outer struct's own.
//
// The tags of a field:
//
//	yaml:"in"            its name in the file; every exported field has one, and "-" leaves the field out
//	doc:"…"              what it is; see below
//	required:"true"      it must be there, and not be empty
//	enum:"a,b"           the only values
//	ref:"cluster"        the value, or each value of a list, is a name of that kind (Format.Refs), and the reader looks
//	                     it up (Reader.Ref)
//	keys:"cluster"       the same for the keys of a map
//	name:"kebab"         the value has that form (Format.Forms)
//	min:"0" max:"65535"  bounds of a number or a duration
//	least:"1" most:"15"  how many items a list may have; a list of names has at least one if nothing is said
//	example:"30s"        what stands for it in advice, if the type alone says too little
//
// Every field has a text that says what it is. Messages and editors show it. A text of more than a few words stands in the
// comment of the field; `go generate` makes the method FieldDocs of it (see lab/strict/fielddocs).
//
// # Checks across fields
//
// If a struct has a method Validate() error, it is called once everything else about the struct is right. The error may be
// a Problem. At gives it the place of one field, and errors.Join reports several at once. A struct that also has a method
// Unread() is validated in any case: Unread is called first if the file says more about the struct than could be read, so
// that Validate does not complain about what may only be misspelled.
package strict
