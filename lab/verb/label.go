package verb

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/eastwest-lab/eastwest/lab/scenario"
	"github.com/eastwest-lab/eastwest/lab/words"
)

// mostOfLabel is how long a label may be, and mostOfWord what of a step's arguments is short enough to stand in it.
const (
	mostOfLabel = 60
	mostOfWord  = 40
)

// labelOf names a step in few words, as a column of a table needs them: "install-istiod cluster-a 1-31".
func labelOf(s scenario.Step) string {
	all := append([]string{s.Verb}, labelWords(reflect.ValueOf(s.Args))...)
	return words.Short(strings.Join(all, " "), mostOfLabel)
}

// labelWords are the short texts among the arguments, in the order of the fields. A revision stands for the version that it has.
func labelWords(args reflect.Value) (all []string) {
	for args.Kind() == reflect.Pointer || args.Kind() == reflect.Interface {
		args = args.Elem()
	}
	if args.Kind() != reflect.Struct {
		return nil
	}
	revision := args.FieldByName("Revision")
	revised := revision.IsValid() && revision.Kind() == reflect.String && revision.Len() > 0
	for i := range args.NumField() {
		field, value := args.Type().Field(i), args.Field(i)
		switch {
		case field.Anonymous:
			all = append(all, labelWords(value)...)
		case !field.IsExported(), field.Tag.Get("yaml") == "", field.Name == "Istio" && revised:
		case value.Kind() == reflect.String:
			all = append(all, labelWord(value.String())...)
		case value.Kind() == reflect.Slice:
			for j := range value.Len() {
				all = append(all, labelWord(fmt.Sprint(value.Index(j).Interface()))...)
			}
		}
	}
	return all
}

func labelWord(text string) []string {
	if text == "" || len(text) > mostOfWord || strings.ContainsAny(text, " \n{[") {
		return nil
	}
	return []string{text}
}
