{{/* Template of the pods, of the Deployment and of the StatefulSet. */}}
{{- define "exporter.pod" -}}
{{- $web := include "exporter.webSecret" . -}}
metadata:
  {{- if or .Values.podAnnotations (include "exporter.config" .) .Values.webConfig }}
  annotations:
    {{- with include "exporter.config" . }}
    checksum/config: {{ . | sha256sum }}
    {{- end }}
    {{- with .Values.webConfig }}
    checksum/web-config: {{ toYaml . | sha256sum }}
    {{- end }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  labels:
    {{- include "exporter.labels" . | nindent 4 }}
    app.kubernetes.io/component: exporter
    {{- if .Values.workloadIdentity.enabled }}
    azure.workload.identity/use: "true"
    {{- end }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "exporter.serviceAccountName" . }}
  automountServiceAccountToken: {{ .Values.automountServiceAccountToken }}
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.terminationGracePeriodSeconds }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.podSecurityContext }}
  securityContext:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: exporter
      image: {{ include "exporter.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args:
        {{- if .Values.demo.enabled }}
        - demo
        {{- with .Values.demo.scenario }}
        - --scenario={{ . }}
        {{- end }}
        {{- else }}
        - run
        - --config.file=/etc/azure-batch-exporter/config.yaml
        {{- end }}
        - --web.listen-address=:10225
        {{- if $web }}
        - --web.config.file=/etc/azure-batch-exporter-web/web.yaml
        {{- end }}
        - --log.level={{ .Values.log.level }}
        - --log.format={{ .Values.log.format }}
        {{- if gt (int .Values.shards) 1 }}
        - --shard=$(POD_INDEX)/{{ .Values.shards }}
        {{- end }}
        {{- with .Values.extraArgs }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if or (gt (int .Values.shards) 1) .Values.extraEnv }}
      env:
        {{- if gt (int .Values.shards) 1 }}
        - name: POD_INDEX
          valueFrom:
            fieldRef:
              fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
      {{- with .Values.extraEnvFrom }}
      envFrom:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      ports:
        - name: metrics
          containerPort: 10225
          protocol: TCP
      livenessProbe:
        {{- include "exporter.probe" (dict "own" .Values.livenessProbe "path" "/-/healthy" "root" $) | nindent 8 }}
      readinessProbe:
        {{- include "exporter.probe" (dict "own" .Values.readinessProbe "path" "/-/ready" "root" $) | nindent 8 }}
      {{- with .Values.resources }}
      resources:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .Values.securityContext }}
      securityContext:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- if or (not .Values.demo.enabled) .Values.persistence.enabled $web .Values.existingSecrets .Values.extraVolumeMounts }}
      volumeMounts:
        {{- if not .Values.demo.enabled }}
        - name: config
          mountPath: /etc/azure-batch-exporter
          readOnly: true
        {{- end }}
        {{- if .Values.persistence.enabled }}
        - name: state
          mountPath: {{ include "exporter.statePath" . }}
        {{- end }}
        {{- if $web }}
        - name: web
          mountPath: /etc/azure-batch-exporter-web
          readOnly: true
        {{- end }}
        {{- range .Values.existingSecrets }}
        - name: secret-{{ . }}
          mountPath: /secrets/{{ . }}
          readOnly: true
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- end }}
  {{- if or (not .Values.demo.enabled) $web .Values.existingSecrets .Values.extraVolumes }}
  volumes:
    {{- if not .Values.demo.enabled }}
    - name: config
      configMap:
        name: {{ .Values.existingConfigMap | default (include "exporter.fullname" .) }}
    {{- end }}
    {{- /* 0440: the group is fsGroup; what everybody may read is a warning in the log. */}}
    {{- if $web }}
    - name: web
      secret:
        secretName: {{ $web }}
        defaultMode: 0440
    {{- end }}
    {{- range .Values.existingSecrets }}
    - name: secret-{{ . }}
      secret:
        secretName: {{ . }}
        defaultMode: 0440
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{/* Metadata of an object: (dict "root" $ "suffix" "-web" "namespace" "" "labels" dict "annotations" dict) */}}
{{- define "exporter.metadata" -}}
name: {{ include "exporter.fullname" .root }}{{ .suffix }}
namespace: {{ .namespace | default (include "exporter.namespace" .root) }}
labels:
  {{- include "exporter.labels" .root | nindent 2 }}
  {{- with .labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
