package config

// Sink is one more place where alerts go: a table [[sink]] of the file.
//
// An alert goes to a sink if it passes every filter that is set: a list that is empty lets everything pass.
type Sink struct {
	Name string
	Type string // webhook | standard-webhook | smtp | script | alertmanager | heartbeat

	Events    []string // names of events
	Servers   []string // names of servers
	Databases []string
	Tags      []string // a server that has one of them passes

	URL                string
	Username, Password string
	Secret             string   // signs the messages of a standard-webhook: whsec_ and base64
	From               string   // of mail
	To                 []string // of mail
	TLS                string   // of mail: starttls | implicit | none; "" = what the URL says
	CAFile             string   // PEM authorities of the receiver; "" = those of the system
	Command            string   // of a script: one program, or
	Directory          string   // every program in it
}
