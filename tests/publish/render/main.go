// Renders a template of Ollama's as Ollama does: its data, its function, its order of keys.
// Argument: the template. Standard input: a list of {"messages", "tools", "think"}; output: a list of texts.
package main

import (
	"encoding/json"
	"os"
	"strings"
	"text/template"
)

type call struct {
	Function struct {
		Name      string
		Arguments map[string]any // a range over a map goes by its keys in order, as in Ollama's templateArgs
	}
}

type message struct {
	Role      string
	Content   string
	Thinking  string
	ToolCalls []call `json:"tool_calls"`
}

type property struct {
	Type        any
	Description string
	Enum        []any
}

type tool struct {
	Type     string
	Function struct {
		Name        string
		Description string
		Parameters  struct {
			Type       string
			Required   []string
			Properties map[string]property
		}
	}
}

type request struct {
	Messages []message
	Tools    []tool
	Think    bool
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func main() {
	functions := template.FuncMap{"json": func(value any) string {
		text, _ := json.Marshal(value)
		return string(text)
	}}
	source, err := os.ReadFile(os.Args[1])
	must(err)
	parsed := template.Must(template.New("").Option("missingkey=zero").Funcs(functions).Parse(string(source)))
	var requests []request
	must(json.NewDecoder(os.Stdin).Decode(&requests))
	texts := []string{}
	for _, one := range requests {
		var text strings.Builder
		var system []string
		for _, message := range one.Messages {
			if message.Role == "system" {
				system = append(system, message.Content)
			}
		}
		must(parsed.Execute(&text, map[string]any{
			"System": strings.Join(system, "\n\n"), "Messages": one.Messages, "Tools": one.Tools,
			"Response": "", "Think": one.Think, "IsThinkSet": true,
		}))
		texts = append(texts, text.String())
	}
	must(json.NewEncoder(os.Stdout).Encode(texts))
}
